"""Centre crop, bicubic resize and range against the authors' data pipeline."""

import json
import pathlib

import numpy as np
import pytest

from tests.conftest import golden_dir
from videodiff_jax.glober.autoencoder import to_float
from videodiff_jax.inputs.video_io import square_crop_resize


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  folder = golden_dir(metafunc.config)
  files = sorted(folder.glob("glober/preprocess*.npz"))
  ids = [str(file.relative_to(folder)) for file in files]
  metafunc.parametrize("file", files, ids=ids)


def test_crop_resize_and_range(file: pathlib.Path) -> None:
  with np.load(file) as golden:
    config = json.loads(str(golden["config"]))
    frame = square_crop_resize(golden["in/image_uint8_hwc"], config["size"])
    np.testing.assert_array_equal(frame.transpose(2, 0, 1), golden["out/resized_uint8_chw"])
    normalised = np.asarray(to_float(frame)).transpose(2, 0, 1)
    truth = golden["out/normalised_chw"]
    np.testing.assert_allclose(normalised, truth, rtol=1e-5, atol=2e-5)
