"""What becomes of long videos: figures of each quarter, on videos made to drift."""

import json

import numpy as np
import pytest

from configs import lgcvd_common
from experiments.measures import digits
from experiments.scoring import drift, score_files
from experiments.setup import checks, frame_stores
from videodiff_jax.inputs import clips
from videodiff_jax.metrics import digit_reader, i3d


def videos(count: int, frames: int = 40) -> np.ndarray:
  """A bright square that moves a pixel a frame along a row, to and fro."""
  made = np.zeros((count, frames, 16, 16, 1), np.uint8)
  for i in range(count):
    for frame in range(frames):
      at = 10 - abs((frame + i) % 20 - 10)
      made[i, frame, 6:10, at : at + 4] = 200
  return made


def fading(true: np.ndarray) -> np.ndarray:
  """Their second half half as bright."""
  faded = true.copy()
  faded[:, true.shape[1] // 2 :] //= 2
  return faded


class Reader:
  """Reads how bright a frame is: 2, 1 or, where it is black, nothing."""

  def read(self, clips: np.ndarray) -> digit_reader.Readings:
    read = clips.max(axis=(2, 3, 4)).astype(int) // 100
    return digit_reader.Readings(np.where(read, read, -1), read[:, 0])


def test_curves_tell_what_becomes_of_frames() -> None:
  true = videos(20)
  of_real, found = (drift.curve(x, true, Reader()) for x in (true, fading(true)))
  assert of_real["sharpness"].mean() == pytest.approx(1)
  np.testing.assert_allclose(of_real["step"], 1)
  np.testing.assert_allclose(found["step"], 1, atol=1e-6)
  np.testing.assert_allclose(found["sharpness"][:20], of_real["sharpness"][:20])
  np.testing.assert_allclose(found["sharpness"][20:], of_real["sharpness"][20:] / 4)
  assert of_real["agreement"].mean() == 1
  np.testing.assert_array_equal(found["agreement"], [1] * 20 + [0] * 20)
  ends = drift.ends(found)
  assert ends["brightness_last"] == pytest.approx(ends["brightness_first"] / 2)
  assert ends["sharpness_last"] == pytest.approx(ends["sharpness_first"] / 4, rel=0.2)


def test_every_quarter_has_its_distance(monkeypatch) -> None:
  monkeypatch.setattr(i3d, "features", lambda clips: clips.mean(axis=(2, 3, 4))[:, :3] + _NOISE)
  true = videos(30)
  found = drift.distances(true, fading(true))
  assert list(found) == ["fvd_1", "fvd_2", "fvd_3", "fvd_4"]
  assert found["fvd_1"] == pytest.approx(0, abs=1e-3) and found["fvd_3"] > 1
  with pytest.raises(checks.UserError, match="A quarter of 30 frames is shorter than the 9 "):
    drift.distances(true[:, :30], true[:, :30])


_NOISE = np.random.default_rng(0).normal(size=(30, 3))


def test_a_score_is_written_and_found_again(monkeypatch, tmp_path) -> None:
  config = lgcvd_common.base()
  config.data.update(video_frames=40, image_size=16, channels=1)
  drawn = []

  def draw(workdir, of_run, frames, count) -> np.ndarray:
    drawn.append((frames, count))
    return fading(videos(count))

  monkeypatch.setattr(drift, "generate_lgcvd", draw)
  monkeypatch.setattr(digits, "reader", lambda _: Reader())
  monkeypatch.setattr(score_files, "settings", lambda *_: {"sample": of_sample(config)})
  monkeypatch.setattr(i3d, "features", lambda clips: clips.mean(axis=(2, 3, 4))[:, :3] + _NOISE[:6])
  monkeypatch.setattr(frame_stores, "open_store", lambda *_: None)
  monkeypatch.setattr(clips, "evaluation_clips", lambda *_: (videos(6), None, None))
  first = drift.score(tmp_path, config, 6, 6)
  assert json.loads((tmp_path / "evaluations" / "drift.json").read_text()) == json.loads(
    json.dumps(first)
  )
  assert drift.score(tmp_path, config, 6, 6) == json.loads(json.dumps(first))
  assert drawn == [(40, 6)] and len(first["curves"]["drawn"]["sharpness"]) == 40


def of_sample(config) -> dict:
  return json.loads(json.dumps(config.sample.to_dict()))
