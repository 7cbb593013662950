"""Centre crop, bicubic resize and range against the authors' data pipeline."""

import json
import pathlib

import numpy as np
import pytest

from tests.golden import files
from videodiff_jax.glober.autoencoder import to_float
from videodiff_jax.inputs.video_io import square_crop_resize


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  folder = files.folder_of(metafunc.config)
  paths = sorted(folder.glob("glober/preprocess*.npz"))
  ids = [str(path.relative_to(folder)) for path in paths]
  metafunc.parametrize("path", paths, ids=ids)


def test_crop_resize_and_range(path: pathlib.Path) -> None:
  with np.load(path) as golden:
    config = json.loads(str(golden["config"]))
    frame = square_crop_resize(golden["in/image_uint8_hwc"], config["size"])
    np.testing.assert_array_equal(frame.transpose(2, 0, 1), golden["out/resized_uint8_chw"])
    normalised = np.asarray(to_float(frame)).transpose(2, 0, 1)
    truth = golden["out/normalised_chw"]
    np.testing.assert_allclose(normalised, truth, rtol=1e-5, atol=2e-5)
