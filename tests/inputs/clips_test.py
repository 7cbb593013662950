import collections
import itertools

import numpy as np
import pytest

from tests.inputs.make import make_store, noise_video
from videodiff_jax.inputs.clips import (
  ClipSampler,
  batches,
  count_starts,
  evaluation_clips,
  keyframe_indices,
)
from videodiff_jax.inputs.frame_store import FrameStore

F, STRIDE = 5, 2
SPAN = 9
# Two too short for a clip, one that has room for exactly one start.
VIDEOS = {
  f"v{i:02d}": noise_video(frames, size=4, seed=i)
  for i, frames in enumerate([9, 10, 12, 8, 11, 14, 9, 10, 3, 13, 12, 10, 11, 12, 9, 10])
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FrameStore:
  return FrameStore.open(make_store(tmp_path_factory.mktemp("clips"), VIDEOS))


@pytest.fixture(scope="module")
def usable(store) -> list[int]:
  return [i for i, video in enumerate(store.videos) if video["frames"] >= SPAN]


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def split(global_batch: int, hosts: int) -> list[np.ndarray]:
  """Each host's rows of a batch, consecutive as the devices of one host are."""
  return np.split(np.arange(global_batch), hosts)


def merge(hosts):
  """One step's rows of all hosts, in the global order."""
  return {key: np.concatenate([host[key] for host in hosts]) for key in hosts[0]}


def truth(store, video, start) -> np.ndarray:
  return VIDEOS[store.videos[video]["name"]][start : start + SPAN : STRIDE]


def test_keyframes_are_at_equal_intervals() -> None:
  assert keyframe_indices(16, 4).tolist() == [0, 5, 10, 15]
  assert keyframe_indices(128, 16)[[0, -1]].tolist() == [0, 127]
  assert keyframe_indices(5, 5).tolist() == [0, 1, 2, 3, 4]
  assert keyframe_indices(5, 1).tolist() == [0]
  for wrong in (6, 0):
    with pytest.raises(ValueError, match="1 to 5 keyframes"):
      keyframe_indices(5, wrong)


@pytest.mark.parametrize("divisor, expected", [(None, F), (F, F), (F - 1, F - 1)])
def test_pairs_hold_the_frames_they_name(store, divisor, expected) -> None:
  sampler = ClipSampler(F, STRIDE, num_keyframes=3, frame_time_divisor=divisor)
  for batch in take(batches(store, sampler, 0, 4), 5):
    assert batch["key_frames"].shape == (4, 3, 4, 4, 3)
    assert batch["target_frames"].shape == (4, 2, 4, 4, 3)
    assert batch["key_frames"].dtype == batch["target_frames"].dtype == np.uint8
    assert batch["target_times"].dtype == np.float32
    assert all(batch[key].dtype == np.int32 for key in ("video", "start", "label"))
    for i in range(4):
      clip = truth(store, batch["video"][i], batch["start"][i])
      np.testing.assert_array_equal(batch["key_frames"][i], clip[[0, 2, 4]])
      targets = batch["target_times"][i] * expected
      np.testing.assert_allclose(targets, targets.round(), atol=1e-5)
      targets = targets.round().astype(int)
      assert targets[0] < targets[1]
      np.testing.assert_array_equal(batch["target_frames"][i], clip[targets])


def test_contents(store) -> None:
  common = {"video", "start", "label"}
  for content, shape in [("clip", (2, F, 4, 4, 3)), ("frames", (2, 3, 4, 4, 3))]:
    sampler = ClipSampler(F, STRIDE, num_keyframes=3, num_targets=3, content=content)
    batch = next(batches(store, sampler, 0, 2))
    assert batch.keys() == common | {"frames"}
    assert batch["frames"].shape == shape
    clip = truth(store, batch["video"][0], batch["start"][0])
    if content == "clip":
      np.testing.assert_array_equal(batch["frames"][0], clip)
    found = [np.flatnonzero((clip == f).all((1, 2, 3))).tolist() for f in batch["frames"][0]]
    assert len(set(map(tuple, found))) == shape[1] and all(len(f) == 1 for f in found)
  keys = next(batches(store, ClipSampler(F, STRIDE, 3, content="keys"), 0, 2))
  assert keys.keys() == common | {"key_frames"}
  clip = truth(store, keys["video"][1], keys["start"][1])
  np.testing.assert_array_equal(keys["key_frames"][1], clip[[0, 2, 4]])


def test_only_the_frames_of_the_batch_are_read(store, monkeypatch) -> None:
  read = []
  # A store of its own: threads of earlier tests may still read ahead from the shared one.
  own = FrameStore(store.directory, store.split, in_memory=False)
  original = own.read
  monkeypatch.setattr(own, "read", lambda v, i: (read.append(len(i)), original(v, i))[1])
  sampler = ClipSampler(9, 1, num_keyframes=2, num_targets=1)
  next(batches(own, sampler, 0, 4, num_threads=1))
  assert read and max(read) <= 3


def test_starts_are_uniform_with_the_last_included(store, usable) -> None:
  starts = collections.defaultdict(collections.Counter)
  for batch in take(batches(store, ClipSampler(F, STRIDE, 3), 1, 8), 60 * len(usable)):
    for video, start in zip(batch["video"], batch["start"]):
      starts[int(video)][int(start)] += 1
  assert starts.keys() == set(usable)
  for video in usable:
    count = store.videos[video]["frames"] - SPAN + 1
    assert starts[video].keys() == set(range(count))
    expected = 480 / count
    chi_square = sum((n - expected) ** 2 / expected for n in starts[video].values())
    assert chi_square < 25  # at most 5 degrees of freedom: p < 0.0002


def test_targets_are_uniform_over_all_pairs(store) -> None:
  counts = collections.Counter()
  for batch in take(batches(store, ClipSampler(F, STRIDE, 3), 2, 50), 40):
    counts.update(map(tuple, (batch["target_times"] * F).round().astype(int).tolist()))
  assert counts.keys() == set(itertools.combinations(range(F), 2))
  assert sum((n - 200) ** 2 / 200 for n in counts.values()) < 35  # 9 degrees of freedom


def test_half_of_the_clips_are_mirrored_as_a_whole(store) -> None:
  mirrored = []
  for batch in take(batches(store, ClipSampler(F, STRIDE, 3, flip=True), 3, 40), 10):
    for i in range(40):
      clip = truth(store, batch["video"][i], batch["start"][i])
      targets = (batch["target_times"][i] * F).round().astype(int)
      mirrored.append(np.array_equal(batch["key_frames"][i], clip[[0, 2, 4], :, ::-1]))
      expected = clip[:, :, ::-1] if mirrored[-1] else clip
      np.testing.assert_array_equal(batch["key_frames"][i], expected[[0, 2, 4]])
      np.testing.assert_array_equal(batch["target_frames"][i], expected[targets])
  assert 150 < sum(mirrored) < 250


@pytest.mark.parametrize("hosts", [2, 4])
def test_order_is_the_same_on_any_number_of_hosts(store, usable, hosts) -> None:
  sampler = ClipSampler(F, STRIDE, 3, flip=True)
  steps = 2 * len(usable) // 8 + 2  # into the third epoch
  alone = take(batches(store, sampler, 5, 8), steps)
  shares = [take(batches(store, sampler, 5, 8, rows=rows), steps) for rows in split(8, hosts)]
  for step in range(steps):
    together = merge([share[step] for share in shares])
    for key, value in alone[step].items():
      np.testing.assert_array_equal(together[key], value)


@pytest.mark.parametrize("sampling", ["video", "clip"])
@pytest.mark.parametrize("hosts", [1, 2])
def test_resumes_by_position_on_any_number_of_hosts(store, hosts, sampling) -> None:
  sampler = ClipSampler(F, STRIDE, 3, flip=True, sampling=sampling)
  straight = take(batches(store, sampler, 6, 4), 12)
  shares = [take(batches(store, sampler, 6, 4, 28, rows=rows), 5) for rows in split(4, hosts)]
  for step in range(5):
    resumed = merge([share[step] for share in shares])
    for key, value in straight[7 + step].items():
      np.testing.assert_array_equal(resumed[key], value)


def test_epochs_visit_every_item_once_in_new_orders(store, usable) -> None:
  sampler = ClipSampler(F, STRIDE, 3)
  drawn = [int(b["video"][0]) for b in take(batches(store, sampler, 7, 1), 3 * len(usable))]
  epochs = np.reshape(drawn, (3, -1)).tolist()
  assert [sorted(epoch) for epoch in epochs] == [usable] * 3
  assert len(set(map(tuple, epochs))) == 3
  other = [int(b["video"][0]) for b in take(batches(store, sampler, 8, 1), len(usable))]
  assert other != epochs[0]


def test_sampling_clip_visits_every_start_once(store) -> None:
  total = int(count_starts(store, ClipSampler(F, STRIDE)).sum())
  sampler = ClipSampler(F, STRIDE, content="keys", num_keyframes=3, sampling="clip")
  visited = {
    (int(b["video"][0]), int(b["start"][0])) for b in take(batches(store, sampler, 0, 1), total)
  }
  assert visited == {
    (i, start)
    for i, video in enumerate(store.videos)
    for start in range(video["frames"] - SPAN + 1)
  }


def test_store_smaller_than_a_batch_repeats(store, usable) -> None:
  batch = next(batches(store, ClipSampler(F, STRIDE, 3), 0, 4 * len(usable)))
  assert collections.Counter(batch["video"].tolist()) == dict.fromkeys(usable, 4)


def test_worker_processes_give_the_same_batches(store) -> None:
  sampler = ClipSampler(F, STRIDE, 3, flip=True)
  loader = batches(store, sampler, 9, 4, 8, num_workers=2)
  workers = take(loader, 5)
  loader.close()
  for ours, theirs in zip(take(batches(store, sampler, 9, 4, 8), 5), workers):
    for key in ours:
      np.testing.assert_array_equal(ours[key], theirs[key])


def test_labels_follow_the_videos(tmp_path) -> None:
  videos = {f"{c}/v{i}": noise_video(3, seed=i) for c in ("run", "jump") for i in range(6)}
  directory = make_store(tmp_path, videos, class_folders=True)
  store = FrameStore.open(directory)
  assert store.classes == ["jump", "run"]
  for batch in take(batches(store, ClipSampler(3, num_keyframes=2), 0, 5), 4):
    for video, label in zip(batch["video"], batch["label"]):
      assert store.videos[video]["name"].startswith(store.classes[label])


def test_evaluation_clips_are_fixed_different_and_spread(store, usable) -> None:
  sampler = ClipSampler(F, STRIDE, flip=True)
  total = int(count_starts(store, sampler).sum())
  clips, videos, starts = evaluation_clips(store, sampler, total, seed=0)
  assert clips.shape == (total, F, 4, 4, 3) and clips.dtype == np.uint8
  assert len(set(zip(videos.tolist(), starts.tolist()))) == total
  assert sorted(videos[: len(usable)].tolist()) == usable  # each video before any again
  for clip, video, start in zip(clips, videos, starts):
    np.testing.assert_array_equal(clip, truth(store, video, start))
  again = evaluation_clips(store, sampler, 5, seed=0)
  for value, first in zip(again, (clips, videos, starts)):
    np.testing.assert_array_equal(value, first[:5])
  assert evaluation_clips(store, sampler, 5, seed=1)[1].tolist() != videos[:5].tolist()
  with pytest.raises(ValueError, match=f"only {total} distinct clips"):
    evaluation_clips(store, sampler, total + 1, seed=0)


def test_short_videos_are_counted_and_none_is_an_error(store, usable, monkeypatch) -> None:
  lines = []
  monkeypatch.setattr("absl.logging.info", lambda text, *values: lines.append(text % values))
  assert np.flatnonzero(count_starts(store, ClipSampler(F, STRIDE))).tolist() == usable
  short = store.num_videos - len(usable)
  assert short and lines[0].startswith(f"{short} of {store.num_videos} train videos")
  with pytest.raises(ValueError, match=r"has the 29 frames of a clip .* the longest has 14"):
    count_starts(store, ClipSampler(15, 2))


@pytest.mark.parametrize("settings, message", [
  ({"content": "movie"}, "Choose one of: frames, pairs, keys, clip"),
  ({"sampling": "frame"}, "Choose one of: video, clip"),
  ({"num_targets": 6}, "1 to 5 target frames"),
  ({"num_keyframes": 6}, "1 to 5 keyframes"),
])  # fmt: skip
def test_wrong_settings_are_errors(settings, message) -> None:
  with pytest.raises(ValueError, match=message):
    ClipSampler(F, STRIDE, **settings)


@pytest.mark.parametrize("sampling", ["video", "clip"])
def test_several_strides_are_drawn(store, sampling) -> None:
  """Where a video is long enough; a clip is of one stride throughout."""
  sampler = ClipSampler(F, 1, content="clip", sampling=sampling, stride_multiples=(1, 3))
  found = collections.Counter()
  for batch in take(batches(store, sampler, 0, 8), 60):
    for video, start, frames in zip(batch["video"], batch["start"], batch["frames"]):
      source = VIDEOS[store.videos[video]["name"]]
      matching = [
        stride
        for stride in (1, 3)
        if start + 4 * stride < len(source)
        and (source[start : start + 4 * stride + 1 : stride] == frames).all()
      ]
      assert len(matching) == 1
      found[matching[0], len(source) >= 13] += 1
  assert found[3, True] and found[1, True] and found[1, False]
  if sampling == "video":  # both as often
    assert abs(found[3, True] - found[1, True]) < 5 * (found[3, True] + found[1, True]) ** 0.5
  else:  # every start of either is an item: in 480 draws many more at stride 1
    assert found[1, True] > 3 * found[3, True]


def test_a_stride_no_video_is_long_enough_for(store) -> None:
  sampler = ClipSampler(F, 1, content="clip", stride_multiples=(1, 4))
  with pytest.raises(ValueError, match=r"17 frames of a clip \(5 at stride 4\)"):
    next(batches(store, sampler, 0, 2))


def test_scores_are_of_the_stride_itself(store) -> None:
  several = ClipSampler(F, 2, content="clip", stride_multiples=(1, 2))
  for ours, alone in zip(
    evaluation_clips(store, several, 6, 0),
    evaluation_clips(store, ClipSampler(F, 2, content="clip"), 6, 0),
  ):
    np.testing.assert_array_equal(ours, alone)
