"""Data sets in the layouts that LGC-VD reads, and its and MCVD's scores, as recorded."""

import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from data.prepare import ensure
from tests.golden import recording
from tests.golden.files import channels_last
from tests.golden.recording import close
from tests.helpers import needs
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.metrics import clip_features, frechet, images


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  kind = {
    test_bair: "bair_tfrecord",
    test_hdf5_shards: "data",
    test_cityscapes: "data",
    test_scores: "metrics",
    test_i3d_preprocessing: "metrics",
  }
  recording.parametrize(metafunc, kind[metafunc.function])


def read_all(store: pathlib.Path) -> np.ndarray:
  train = FrameStore.open(store)
  return np.stack([train.read(i, range(v["frames"])) for i, v in enumerate(train.videos)])


def test_bair(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
  golden = recording.load(path)
  (tmp_path / "source" / "train").mkdir(parents=True)
  shutil.copy(path.with_name(golden.config["file"]), tmp_path / "source" / "train")
  videos = read_all(ensure("bair", tmp_path / "store", source=str(tmp_path / "source")))
  (name,) = (name for name in golden.outputs if name.startswith("aux1_frames_"))
  recorded = [int(t) for t in name.removeprefix("aux1_frames_").split("_")]
  np.testing.assert_array_equal(videos[:, recorded], golden.outputs[name])
  other_camera = golden.outputs[name.replace("aux1", "main")]
  assert (videos[:, recorded] != other_camera).any(axis=(2, 3, 4)).all()
  means = videos.mean(axis=(2, 3))
  np.testing.assert_allclose(means, golden.outputs["aux1_mean_per_frame"], rtol=1e-5)


def test_hdf5_shards(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
  h5py = needs("h5py")
  golden = recording.load(path)
  source = tmp_path / "source" / "train"
  source.mkdir(parents=True)
  for name in golden.config["shards"]:
    shutil.copy(path.with_name(f"h5_{name}"), source / name)
  with h5py.File(source / "shard_9999.hdf5", "w") as trailing:
    trailing.create_group("len")
    trailing.create_group("videos")
  videos = golden.outputs["videos"]
  options = {"source": str(source.parent), "size": videos.shape[2]}
  store = ensure("hdf5_shards", tmp_path / "store", **options)
  np.testing.assert_array_equal(read_all(store), videos)


def test_cityscapes(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
  golden = recording.load(path)
  city = tmp_path / "source" / "train" / "city"
  city.mkdir(parents=True)
  for t in range(30):
    picture = Image.fromarray(golden.inputs["city_in"])
    picture.save(city / f"city_000000_{t:06d}_leftImg8bit.png")
  truth = golden.outputs["city_out"]
  options = {"source": str(tmp_path / "source"), "size": len(truth), "codec": "png"}
  (video,) = read_all(ensure("cityscapes", tmp_path / "store", **options))
  for frame in video:
    np.testing.assert_array_equal(frame, truth)


def grey(video: np.ndarray) -> np.ndarray:
  """Floats in [0, 1] as MCVD makes them 8-bit and grey."""
  frames = (video * 255).astype(np.uint8)
  return np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in frames])[..., None]


def test_scores(path: pathlib.Path) -> None:
  golden = recording.load(path)
  out = golden.outputs
  real, fake = (channels_last(golden.inputs[name]) for name in ("real", "fake"))
  close(images.psnr(real[2:], fake[2:]).mean(), out["lgcvd_psnr"], 2e-5, "LGC-VD's PSNR")
  ssim = images.ssim(real[2:], fake[2:], window="uniform").mean()
  close(ssim, out["lgcvd_ssim"], 2e-5, "LGC-VD's SSIM")
  psnr = images.video_psnr(real, fake)
  close(psnr, out["mcvd_psnr"], 2e-5, "MCVD's PSNR")
  close(10 ** (-psnr / 10), out["mcvd_mse"], 2e-5, "MCVD's squared error")
  close(images.ssim(grey(real), grey(fake)).mean(), out["mcvd_ssim"], 2e-5, "MCVD's SSIM")
  features = golden.inputs["feats_real"], golden.inputs["feats_fake"]
  close(frechet.fvd(*features), out["frechet"], 2e-5, "Frechet distance")
  close(frechet.fvd(features[0], features[0]), out["frechet_same"], 2e-5, "no distance")


def test_i3d_preprocessing(path: pathlib.Path) -> None:
  golden = recording.load(path)
  inputs = {
    "nonsquare": golden.inputs["nonsquare_cthw"].transpose(1, 2, 3, 0),
    "": channels_last(golden.inputs["real"]),
  }
  names = [name for name in golden.outputs if name.startswith("preprocess_")]
  assert names
  for name in names:
    *shape, size = name.removeprefix("preprocess_").split("_")
    ours = clip_features.preprocess(inputs["".join(shape)][None], size=int(size))
    close(ours[0], golden.outputs[name].swapaxes(0, 1), 2e-5, name)
