"""--mode=benchmark --inputs: what is read, and what stands in the table."""

import re

import pytest

from experiments.benchmarks import clip_reading
from experiments.setup.errors import UserError
from experiments.train import plan
from tests.inputs.make import make_store, noise_video
from tests.lgcvd import tiny
from videodiff_jax.inputs.clips import ClipSampler
from videodiff_jax.inputs.frame_store import FrameStore


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FrameStore:
  videos = {f"{i}": noise_video(20, tiny.SIDE, i) for i in range(4)}
  folder = make_store(tmp_path_factory.mktemp("data"), videos, codec="png")
  return FrameStore.open(folder, "train", in_memory=False)


def test_every_stage_has_its_row(store, monkeypatch) -> None:
  config = tiny.config()
  config.data.update(dir=str(store.directory), channels=3)
  # A step of 989 GFLOP a clip: 400 clips a second at 40 % of the chip.
  flops = 989_000_000_000 * config.train.lgcvd.batch_size
  figures = plan.StageFigures(1, flops, 1, 1)
  monkeypatch.setattr(clip_reading.plan, "stage_figures", lambda *_: figures)
  taken = []
  monkeypatch.setattr(
    clip_reading, "read", lambda *args: taken.append(args[2]) or (0.005, (1e6, 2e6))
  )
  text = clip_reading.show(config, late=40, early=10)
  whole, stage = (re.split(r" {2,}", line.strip()) for line in text.splitlines()[2:4])
  assert whole == ["whole, 14 frames", "5.00", "200.0"]
  assert stage == ["lgcvd: clip", "5.00", "200.0", "400.0", "2.0"]
  assert taken == [40, 4] and "1 MB after 10 whole clips, 2 MB after 40" in text


def test_frames_are_decoded_anew_and_memory_is_looked_at_twice(store, monkeypatch) -> None:
  decoded, peaks = [], iter([1, 2, 3])
  read_records = FrameStore.read_records
  monkeypatch.setattr(
    FrameStore, "read_records", lambda self, r: (decoded.extend(r), read_records(self, r))[1]
  )
  monkeypatch.setattr(clip_reading, "_peak", lambda: next(peaks))
  sampler = ClipSampler(num_frames=4, content="clip")
  seconds, (first, last) = clip_reading.read(store, sampler, 40, 20)
  assert seconds > 0 and (first, last) == (2, 3)  # after 10 and 20 clips, and at the end
  assert len(decoded) >= 40 * 4


def test_another_size_is_told(store) -> None:
  config = tiny.config()
  config.data.update(dir=str(store.directory), channels=3, image_size=16)
  with pytest.raises(UserError, match="has image_size 8"):
    clip_reading.show(config)
