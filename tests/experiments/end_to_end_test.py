"""From an empty folder to clips: the stages, a second call, every way of drawing, the scores."""

import dataclasses
import io
import json
import pathlib
from collections.abc import Iterable

import ml_collections
import numpy as np
import pytest
from PIL import Image

from data import prepare
from experiments.claims import sweep
from experiments.measures import digits, nearest, set_scores
from experiments.sampling import glober_samples, nearest_clips
from experiments.scoring import glober_ladder, glober_protocols
from experiments.setup import checks, frame_stores, latent_caches
from experiments.train import train
from tests.experiments.flags import options
from tests.glober import tiny
from tests.helpers import assert_same_pixels, needs
from tests.inputs.make import make_store, noise_video
from tests.weights import require
from videodiff_jax import glober, shares
from videodiff_jax.inputs import video_io
from videodiff_jax.inputs.clips import ClipSampler, evaluation_places
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.metrics import frame_frechet, frechet, i3d, images
from videodiff_jax.metrics.clip_protocols import ClipProtocol
from videodiff_jax.metrics.digit_reader import Readings
from videodiff_jax.pretrained import i3d as i3d_weights
from videodiff_jax.training.workdir import newest_meta
from videodiff_jax.training.writers import read_metrics

pytestmark = pytest.mark.heavy

SIDE = 16  # SSIM's window is 11 pixels wide


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ml_collections.ConfigDict:
  config = tiny.config()
  config.data.update(name="moving_digits", image_size=SIDE, num_classes=10)
  config.data.dir = str(tmp_path_factory.mktemp("data") / "digits")
  config.mesh.data = 8
  config.model.latent_scale = 0.0  # of a KL-VAE that the run trains: measured
  for name in config.stages:
    config.train[name].update(steps=2, log_every=1, checkpoint_every=2)
    config.train[name].update(preview_every=2, validate_every=2)
  needs("av")
  with checks.as_user_error():
    prepare.ensure("moving_digits", config.data.dir, size=SIDE, num_videos=40)
  return config


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  workdir = tmp_path_factory.mktemp("runs") / "tiny"
  assert train.train(config, workdir, None)
  return workdir


def newest(workdir: pathlib.Path) -> pathlib.Path:
  return max((workdir / "samples").iterdir())


def test_every_stage_leaves_checkpoints_metrics_and_previews(workdir) -> None:
  for name in ("kl_vae", "autoencoder", "generator"):
    assert (workdir / name / "checkpoints" / "2").is_dir()
    rows = read_metrics(workdir / name / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2]
    assert [row["step"] for row in rows if "validation_loss" in row] == [2]
    assert {file.suffix for file in (workdir / name / "previews").iterdir()} == {".png", ".gif"}
    assert newest_meta(workdir, name)[latent_caches.READ] is None


def test_a_second_call_has_nothing_to_do(workdir, config) -> None:
  before = {file: file.stat().st_mtime_ns for file in workdir.rglob("metrics.jsonl")}
  assert train.train(config, workdir, None)
  assert before == {file: file.stat().st_mtime_ns for file in workdir.rglob("metrics.jsonl")}


def test_another_model_is_refused_in_the_same_workdir(workdir, config) -> None:
  other = config.copy_and_resolve_references()
  other.model.unet.channels = 16
  with pytest.raises(checks.UserError, match=r"config\.model\.unet\.channels: 8 there, 16 now"):
    train.train(other, workdir, None)


def assert_nearest(found: dict, folder: pathlib.Path, drawn: np.ndarray, config) -> None:
  """Compares settings.json and nearest.png with all pairs of clips."""
  store = frame_stores.open_store(config, "train")
  bank = nearest.one_of_each(store, frame_stores.clip_sampler(config, "clip"))
  squares = np.square(drawn[:, None].astype(float) - bank.read()).mean(axis=(2, 3, 4, 5))
  chosen, distances = squares.argmin(axis=1), np.sqrt(squares.min(axis=1))
  assert found["searched"] == len(bank)
  for one, i, distance in zip(found["nearest"], chosen, distances, strict=True):
    name = store.videos[bank.videos[i]]["name"]
    assert (one["video"], one["start"]) == (name, bank.starts[i])
    assert one["levels_of_255"] == pytest.approx(distance, abs=1e-3)
  rows, expected = {}, folder.parent.parent / "expected.png"
  for i, clip in enumerate(bank.read(chosen)):
    rows |= {f"sample {i}": drawn[i], f"nearest {i}, {distances[i]:.1f} away": clip}
  video_io.write_strip(expected, rows)
  assert (folder / "nearest.png").read_bytes() == expected.read_bytes()


def test_sample_then_redraw_at_a_higher_rate(workdir, config) -> None:
  glober_samples.sample(workdir, None, options(class_label=3, seed=7, nearest=True))
  first = newest(workdir)
  with np.load(first / "samples.npz") as saved:
    videos, labels = saved["videos"], saved["labels"]
    assert videos.shape == (2, tiny.FRAMES, SIDE, SIDE, 1)
    assert labels.tolist() == [3, 3] and int(saved["seed"]) == 7
  assert len(list(first.glob("*.mp4"))) == 2
  settings = json.loads((first / "settings.json").read_text())
  assert settings["mode"] == "sample"
  assert_nearest(settings["nearest_training_clips"], first, videos, config)
  glober_samples.redraw(workdir, None, options(num_frames=2 * tiny.FRAMES - 1))
  with np.load(newest(workdir) / "samples.npz") as again:
    assert again["videos"].shape[1] == 2 * tiny.FRAMES - 1
    assert not (newest(workdir) / "nearest.png").exists()  # unless it is asked for
    # Every second frame is a frame of the sample, drawn from the same noise.
    difference = np.abs(again["videos"][:, ::2].astype(int) - videos)
    assert difference.max() <= 1


def test_nearest_takes_the_training_data_and_its_frame_times(workdir, tmp_path) -> None:
  with pytest.raises(checks.UserError, match="remove --num_frames, --frame_times"):
    glober_samples.sample(workdir, None, options(num_frames=4, nearest=True))
  saved = json.loads((workdir / "config.json").read_text())
  saved["data"]["dir"] = str(tmp_path / "elsewhere")
  (tmp_path / "config.json").write_text(json.dumps(saved))
  for stage in saved["stages"]:
    (tmp_path / stage).symlink_to(workdir / stage)
  with pytest.raises(checks.UserError, match=r"--nearest needs .*: .*elsewhere holds no frame sto"):
    glober_samples.sample(tmp_path, None, options(nearest=True))
  assert not (tmp_path / "samples").exists()


def test_reconstruct_the_test_split_and_a_file(workdir, tmp_path) -> None:
  glober_samples.reconstruct(workdir, None, options())
  folder = newest(workdir)
  glober_samples.reconstruct(workdir, None, options(input=str(folder / "000.mp4")))
  assert newest(workdir) != folder
  with pytest.raises(checks.UserError, match="a clip needs 8"):
    short = tmp_path / "short.mp4"
    video_io.write_mp4(short, np.zeros((3, 16, 16, 3), np.uint8))
    glober_samples.reconstruct(workdir, None, options(input=str(short)))


def test_library_reads_what_the_command_wrote(workdir, tmp_path) -> None:
  """And what its first version would have: without the keys that came after it."""
  saved = json.loads((workdir / "config.json").read_text())
  for name in ("text", "init"):
    del saved[name]
  for group, key in (("data", "cache"), ("sample", "guidance_form"), ("sample", "guidance_text")):
    del saved[group][key]
  del saved["model"]["unet"]["text_attention"], saved["model"]["frame_control"]["scale_shift"]
  (tmp_path / "config.json").write_text(json.dumps(saved))
  for stage in saved["stages"]:
    (tmp_path / stage).symlink_to(workdir / stage)
  pipeline = glober.Pipeline.from_workdir(tmp_path, guidance_decoder=2.0)
  assert pipeline.config.sample.guidance_decoder == 2.0
  assert pipeline.generate(1, frame_times=[0.5]).videos.shape == (1, 1, SIDE, SIDE, 1)


@dataclasses.dataclass
class Judged:
  """An evaluation whose I3D is a fixed random projection, and the clips it was shown."""

  record: dict
  shown: np.ndarray


def projection(clips: np.ndarray) -> np.ndarray:
  """(n, f, h, w, c) uint8 -> (n, 5) features that see every pixel of every frame."""
  flat = clips.reshape(len(clips), -1) / 255.0
  return flat @ np.random.default_rng(0).normal(size=(flat.shape[1], 5))


def projected_frames(clips: np.ndarray) -> np.ndarray:
  """(n, f, 5), of each frame alike."""
  return np.stack([projection(frames) for frames in clips.swapaxes(0, 1)], axis=1)


def features_of(clips: np.ndarray) -> set_scores.Features:
  return set_scores.Features(projection(clips), projected_frames(clips))


def require_networks() -> None:
  require(i3d_weights.WEIGHTS)
  require(frame_frechet.WEIGHTS)


@pytest.fixture(scope="module")
def judged(workdir, config) -> Judged:
  require(i3d_weights.WEIGHTS)
  counts = config.copy_and_resolve_references()
  counts.evaluate.update(num_real=6, num_fake=3, motion=True)
  (workdir / "evaluations").mkdir()
  (workdir / "evaluations" / "ladder.json").write_text("an earlier one")
  shown = []

  def features(parts: Iterable[np.ndarray]) -> np.ndarray:
    shown.append(np.concatenate(list(parts)))
    return projection(shown[-1])

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(i3d, "features", features)
    patch.setattr(i3d, "MIN_FRAMES", tiny.FRAMES)
    return Judged(glober_ladder.evaluate(workdir, counts), *shown)


def test_evaluation_says_what_it_scored(judged, workdir, config) -> None:
  assert (workdir / "evaluations" / "ladder.json").read_text() == "an earlier one"
  record = json.loads((workdir / "evaluations" / "ladder_2.json").read_text())
  assert record == json.loads(json.dumps(judged.record))
  assert record["protocol"] == "ladder"
  settings = record["settings"]
  assert (settings["num_real"], settings["num_fake"]) == (6, 3)
  assert (settings["num_frames"], settings["image_size"]) == (tiny.FRAMES, SIDE)
  assert settings["steps"] == {"kl_vae": 2, "autoencoder": 2, "generator": 2}
  assert settings["sample"] == json.loads(json.dumps(config.sample.to_dict()))
  assert settings["detector_sha256"] == i3d_weights.WEIGHTS.sha256
  store = frame_stores.open_store(config, "train")
  assert settings["data_fingerprint"] == store.fingerprint
  assert settings["neighbour_bank"] == store.num_videos
  assert {"stride", "crop", "range", "codec", "resize_to_224", "seed", "code"} <= settings.keys()
  assert record["config"]["data"]["name"] == "moving_digits" and "jax" in record["versions"]
  for name in ("sets_2.png", "sets_2.gif", "nearest_training_clips_2.png"):
    assert (workdir / "evaluations" / name).stat().st_size > 500


def test_ladder_compares_the_sets_it_names(judged) -> None:
  """Each rung against what it should be, from the held-out clips themselves."""
  reference, *sets = np.split(judged.shown, [6, 9, 12, 15, 18, 21, 24])
  ladder = judged.record["scores"]["fvd"]
  names = ("real", "kl_vae", "reconstruction", "generated", "shuffled", "frozen", "blurred")
  assert tuple(ladder) == names
  sets = dict(zip(names, sets, strict=True))
  for name, clips in sets.items():
    assert clips.shape == (3, tiny.FRAMES, SIDE, SIDE, 1) and clips.dtype == np.uint8
    distance = frechet.fvd(projection(reference), projection(clips))
    assert ladder[name] == pytest.approx(distance) and distance > 0
    assert name == "real" or (clips != sets["real"]).any(axis=(1, 2, 3, 4)).all()
  # (A decoder of two steps may draw alike for every global feature.)
  assert len({ladder[name] for name in ("real", "shuffled", "frozen", "blurred")}) == 4
  inception = judged.record["scores"]["i3d_inception_score"]
  assert tuple(inception) == names
  for name, clips in sets.items():
    expected = i3d.inception_score(projection(clips), splits=1)
    assert inception[name] == pytest.approx(expected) and expected >= 1
  real = sets["real"]
  np.testing.assert_array_equal(np.sort(sets["shuffled"], axis=1), np.sort(real, axis=1))
  assert (sets["frozen"] == real[:, :1]).all()
  assert sets["blurred"].max() < real.max()


def test_scores_stand_beside_trivial_predictions(judged) -> None:
  frames = judged.record["scores"]["frames"]
  trivial = ["black", "mean frame", "nearest true keyframe", "cross-faded true keyframes"]
  assert list(frames) == ["kl_vae", "reconstruction", *trivial]
  real = judged.shown[6:9].astype(float)
  black = np.mean(10 * np.log10(255**2 / np.square(real).mean(axis=(2, 3, 4))))
  np.testing.assert_allclose(frames["black"]["psnr"], black, rtol=1e-5)
  assert all(-1 <= row["ssim"] <= 1 for row in frames.values())
  motion = judged.record["scores"]["motion"]["sets"]
  assert motion["real"]["position_error"] == 0 < motion["frozen"]["position_error"]
  assert motion["frozen"]["jitter"] == 0 < motion["real"]["jitter"]
  used = judged.record["scores"]["use_of_condition"]
  of_class = [f"{n}: {of}" for n in ("decoder", "generator")
              for of in ("class of another clip", "no class")]  # fmt: skip
  of_frames = ["global feature of another clip", "time of another frame"]
  assert list(used) == [*(f"decoder: {of}" for of in of_frames), *of_class]
  assert judged.record["intervals"]["use_of_condition"].keys() == used.keys()
  assert list(judged.record["scores"]["nearest_training_clip"]) == ["real", "generated"]


def test_figures_have_intervals_and_decoders_curves(judged) -> None:
  record = judged.record
  groups = ("fvd", "i3d_kernel_distance", "i3d_inception_score", "sharpness", "frames")
  for group in groups:
    assert record["intervals"][group].keys() == record["scores"][group].keys()
  assert list(record["curves"]) == ["kl_vae", "reconstruction"]
  curve = record["curves"]["reconstruction"]["psnr"]
  assert len(curve) == tiny.FRAMES
  mean = record["scores"]["frames"]["reconstruction"]["psnr"]
  assert np.mean(curve) == pytest.approx(mean, abs=1e-4)


# ---- named protocols

TINY = ClipProtocol("tiny", "Of a test.", num_real=6, num_drawn=3, num_frames=tiny.FRAMES)


@pytest.fixture
def judge(monkeypatch) -> list[np.ndarray]:
  """Projections for the networks, two clips a chunk; gives the sets they have seen."""
  require_networks()
  seen = []

  def features(chunks, resize: str) -> set_scores.Features:
    assert resize == "torch"
    seen.append(np.concatenate(list(chunks)))
    return features_of(seen[-1])

  monkeypatch.setattr(set_scores, "features", features)
  monkeypatch.setattr(glober_protocols, "CHUNK", 2)
  return seen


def test_a_sweep_draws_the_held_out_clips_conditions(workdir, config, monkeypatch) -> None:
  seen = []
  monkeypatch.setattr(set_scores, "locate", lambda: None)
  monkeypatch.setattr(
    set_scores, "features", lambda clips: [seen.append(clips), features_of(clips)][1]
  )
  wanted = config.copy_and_resolve_references()
  wanted.evaluate.update(num_real=6, num_fake=3)
  wanted.sweep.update(kinds=("ddim",), grids=("uniform",), steps=(2,))
  (point,) = sweep.run(workdir, wanted)["points"]
  reference, drawn = seen
  store = frame_stores.open_store(config, "test")
  held_out = evaluation_places(store, frame_stores.clip_sampler(config, "clip"), 3, 0)
  labels = np.array([store.videos[video]["label"] for video in held_out.videos])
  expected = glober.Pipeline.from_workdir(workdir).generate(3, labels=labels).videos
  assert_same_pixels(drawn, expected)
  fvd = frechet.fvd(projection(reference), projection(drawn))
  assert len(reference) == 6 and point["scores"]["fvd"] == pytest.approx(fvd)
  with pytest.raises(checks.UserError, match="--protocol is not supported by GLOBER's sweep"):
    sweep.run(workdir, wanted, "quick")


class Reader:
  """Reads a three in every frame."""

  def read(self, videos: np.ndarray) -> Readings:
    return Readings(np.full(videos.shape[:2], 3), np.full(len(videos), 3))


@pytest.mark.parametrize(
  "changes", [{}, {"drawn": "reconstruction", "jpeg_quality": 75, "covariance": "population"}]
)
def test_a_named_protocol(judge, monkeypatch, workdir, config, changes) -> None:
  protocol = dataclasses.replace(TINY, name="_".join(["tiny", *changes]), **changes)
  monkeypatch.setattr(glober_protocols, "CLIP_PROTOCOLS", {protocol.name: protocol})
  monkeypatch.setattr(digits, "reader", lambda store: Reader())
  reads = config.copy_and_resolve_references()
  reads.evaluate.digits = True
  record = glober_protocols.evaluate(workdir, reads, protocol.name)
  file = workdir / "evaluations" / f"{protocol.name}.json"
  assert json.loads(file.read_text()) == json.loads(json.dumps(record))
  assert file.with_suffix(".png").is_file() and file.with_suffix(".gif").is_file()
  assert record["protocol"] == dataclasses.asdict(protocol)
  real, drawn = judge
  assert len(real) == 6 and len(drawn) == 3
  assert glober_protocols.evaluate(workdir, None, protocol, reuse=True) == json.loads(
    json.dumps(record)
  )
  assert len(judge) == 2
  settings = record["settings"]
  assert (settings["num_real"], settings["num_drawn"]) == (6, 3)
  told = {"data_fingerprint", "detector_sha256", "steps", "sample", "code"}
  assert told | set_scores.SETTINGS.keys() <= settings.keys()
  assert {"config", "versions"} <= record.keys()
  scores = record["scores"][protocol.drawn]
  expected = frechet.fvd(projection(real), projection(drawn), protocol.covariance)
  assert scores["fvd"] == pytest.approx(expected)
  distance = frame_frechet.alexnet_frame_frechet(
    projected_frames(real), projected_frames(drawn), protocol.covariance
  )
  assert scores["alexnet_frame_frechet"] == pytest.approx(distance)
  for name, clips in (("", drawn), ("_of_real", real)):
    inception = i3d.inception_score(projection(clips), splits=1)
    assert scores[f"i3d_inception_score{name}"] == pytest.approx(inception)
  assert record["intervals"][protocol.drawn].keys() == scores.keys()
  edges = [images.gradient_energy(clips).mean() for clips in (drawn, real)]
  assert scores["sharpness"] == pytest.approx(edges[0] / edges[1])
  stores = [frame_stores.open_store(config, split) for split in protocol.splits]
  places = glober_protocols.choose(stores, frame_stores.clip_sampler(config, "clip"), protocol)
  labels = np.array([store.videos[video]["label"] for store, video, _ in places])
  read = record["scores"]["digits"]
  assert read["real"]["clip_right"] == pytest.approx(np.mean(labels == 3))
  pipeline = glober.Pipeline.from_workdir(workdir)
  if changes:
    psnr = images.psnr(drawn, real[:3]).mean()
    assert scores["psnr"] == pytest.approx(psnr)
    assert read["reconstruction"]["clip_right"] == pytest.approx(np.mean(labels[:3] == 3))
    assert "nearest_training_clip" not in record["scores"]
    assert len({scores["fvd"], frechet.fvd(projection(real), projection(drawn))}) == 2
  else:
    inception = {"i3d_inception_score", "i3d_inception_score_of_real"}
    others = {"alexnet_frame_frechet", "i3d_kernel_distance", "sharpness"}
    assert set(scores) == {"fvd"} | others | inception
    # Classes are those of random videos, as StyleGAN-V draws them.
    labels = np.array([video["label"] for store in stores for video in store.videos])
    chunks, classes = [], []
    for seed, count in enumerate((2, 1)):
      told = labels[np.random.default_rng(seed).integers(0, len(labels), count)]
      chunks.append(pipeline.generate(count, labels=told, seed=seed).videos)
      classes.extend(told)
    assert_same_pixels(drawn, np.concatenate(chunks))
    assert read["generated"]["clip_right"] == pytest.approx(np.mean(np.array(classes) == 3))
    bank = nearest.one_of_each(stores[0], frame_stores.clip_sampler(config, "clip")).read()
    apart = np.square(drawn[:, None].astype(float) - bank).mean(axis=(2, 3, 4, 5))
    distance = np.sqrt(apart.min(axis=1)).mean()
    near = record["scores"]["nearest_training_clip"]
    assert near["generated"] == pytest.approx(distance) and near["real"] > 0


def test_real_clips_are_of_all_splits_one_of_each_video(workdir, config) -> None:
  stores = [frame_stores.open_store(config, split) for split in TINY.splits]
  sampler = frame_stores.clip_sampler(config, "clip")
  everything = dataclasses.replace(TINY, num_real=10**6)
  places = glober_protocols.choose(stores, sampler, everything)
  videos = {(store.split, video) for store, video, _ in places}
  assert len(videos) == len(places) == sum(store.num_videos for store in stores)
  some = glober_protocols.choose(stores, sampler, TINY)
  assert some == places[:6]


def test_jpeg_changes_frames_a_little_and_is_pillow_s() -> None:
  videos = np.stack([noise_video(3, seed=seed) for seed in range(2)])
  for clips in (videos, videos[..., :1]):
    read = glober_protocols.as_jpeg(clips, 75)
    assert read.shape == clips.shape and read.dtype == np.uint8
    assert 0 < np.abs(read.astype(int) - clips).mean() < 60
  file = io.BytesIO()
  Image.fromarray(videos[1, 2]).save(file, "JPEG")  # quality 75, 4:2:0
  np.testing.assert_array_equal(
    glober_protocols.as_jpeg(videos, 75)[1, 2], np.asarray(Image.open(file))
  )


def test_a_protocol_that_cannot_be_done(judge, workdir) -> None:
  with pytest.raises(checks.UserError, match=r"Unknown protocol 'tiny'\. Choose one of: style"):
    glober_protocols.evaluate(workdir, None, "tiny")
  with pytest.raises(
    checks.UserError, match=r"of 128 frames, but this run was trained on 8: .*128"
  ):
    glober_protocols.evaluate(workdir, None, "styleganv_fvd2048_128f")
  assert not judge


def test_the_nearest_are_searched_among_videos_long_enough(tmp_path) -> None:
  videos = {f"video {i}": noise_video(7 + i % 2, seed=i) for i in range(12)}
  store = FrameStore.open(make_store(tmp_path, videos))
  long_enough = [video for video in store.videos if video["frames"] == 8]
  assert 0 < len(long_enough) < store.num_videos
  bank = nearest.one_of_each(store, ClipSampler(8, content="clip"))
  assert bank.read().shape == (len(long_enough), 8, 8, 8, 3)


def test_a_copied_training_clip_is_seen(tmp_path, monkeypatch) -> None:
  store = FrameStore.open(make_store(tmp_path, {f"{i}": noise_video(8, seed=i) for i in range(6)}))
  bank = nearest.one_of_each(store, ClipSampler(8, content="clip"))
  copy, unseen = bank.read([2]), np.stack([noise_video(8, seed=99)])
  near, distances, spread = nearest.search({"generated": copy, "real": unseen}, bank)
  np.testing.assert_array_equal(near["generated"], copy)
  assert distances["generated"] == 0 and spread.keys() == distances.keys()
  rows = np.square(bank.read().astype(float) - unseen).mean(axis=(1, 2, 3, 4))
  assert distances["real"] == pytest.approx(np.sqrt(rows.min()))
  both = np.concatenate([unseen, copy])
  found = nearest_clips.find(both, bank, 1)
  away = [one["levels_of_255"] for one in found.written["nearest"]]
  assert away == [pytest.approx(distances["real"], abs=1e-3), 0] and len(found.rows) == 2
  monkeypatch.setattr(nearest_clips, "_MOST_BYTES", 1)  # a pass for each clip
  assert nearest_clips.find(both, bank, 1).written == found.written
  monkeypatch.setattr(shares, "split", lambda do, n: [do(slice(0, 2)), do(slice(2, n))])
  of_hosts, same, _ = nearest.search({"generated": copy, "real": unseen}, bank)
  assert same == distances
  for name, clips in near.items():
    np.testing.assert_array_equal(of_hosts[name], clips)


def test_clips_too_short_for_fvd_are_told(workdir, config) -> None:
  require(i3d_weights.WEIGHTS)
  with pytest.raises(checks.UserError, match=f"have {tiny.FRAMES} frames; FVD needs 9 or more"):
    glober_ladder.evaluate(workdir, config)


def test_too_many_clips_are_told(workdir, config, monkeypatch) -> None:
  require(i3d_weights.WEIGHTS)
  monkeypatch.setattr(i3d, "MIN_FRAMES", tiny.FRAMES)
  counts = config.copy_and_resolve_references()
  counts.evaluate.num_fake = 10**6
  with pytest.raises(checks.UserError, match="1000000 clips were asked for"):
    glober_ladder.evaluate(workdir, counts)


def test_wrong_requests_are_told(workdir) -> None:
  with pytest.raises(checks.UserError, match="classes 0 to 9"):
    glober_samples.sample(workdir, None, options(class_label=10))
  with pytest.raises(checks.UserError, match="No file"):
    glober_samples.redraw(workdir, None, options(input="nowhere.npz"))
