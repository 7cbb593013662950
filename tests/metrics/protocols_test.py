"""Named recipes: complete, immutable, and the published ones with every setting of theirs."""

import dataclasses

import numpy as np
import pytest

from videodiff_jax.metrics.protocols import PROTOCOLS, Protocol


def test_names() -> None:
  assert set(PROTOCOLS) == {
    "standard", "quick", "quick_prediction", "best_of_10", "smoke", "lgcvd_paper_bair",
    "lgcvd_paper_cityscapes",
    "mcvd_bair", "mcvd_cityscapes", "lgcvd_paper_cityscapes_p1", "lgcvd_paper_bair_n14",
    "lgcvd_paper_bair_p1_n15", "lgcvd_paper_bair_interpolation", "mcvd_bair_n14",
    "mcvd_bair_p1_n15", "moving_mnist", "moving_mnist_p2", "mcvd_smmnist",
  }  # fmt: skip
  for name, protocol in PROTOCOLS.items():
    assert protocol.name == name and protocol.about
  with pytest.raises(TypeError):
    PROTOCOLS["mine"] = PROTOCOLS["quick"]
  with pytest.raises(dataclasses.FrozenInstanceError):
    PROTOCOLS["quick"].num_videos = 2


def test_release_of_lgcvd() -> None:
  ours = PROTOCOLS["lgcvd_paper_bair"]
  assert (ours.num_videos, ours.trajectories, ours.past, ours.num_frames) == (256, 100, 2, 28)
  assert (ours.sampler, ours.sampler_steps, ours.flip) == ("ddpm", 100, True)
  assert (ours.first_scored, ours.psnr, ours.ssim_window, ours.ssim_grey) == (
    2, "frames", "uniform", False
  )  # fmt: skip
  assert (ours.lpips_net, ours.lpips_range, ours.lpips_size) == ("alex", (0.0, 1.0), None)
  assert ours.best == "released_groups"
  assert (ours.fvd_given, ours.fvd_trajectories, ours.fvd_repeat_real) == ("drawn", "all", True)
  for fault in ("[0, 1] instead of [-1, 1]", "off by one", "mirrored", "redraws", "repeated"):
    assert fault in ours.about


def test_mcvd() -> None:
  ours = PROTOCOLS["mcvd_bair"]
  assert (ours.num_videos, ours.trajectories, ours.past, ours.num_frames) == (256, 10, 2, 28)
  assert (ours.sampler, ours.sampler_steps, ours.flip) == ("ddpm", 100, False)
  assert (ours.psnr, ours.ssim_window, ours.ssim_grey) == ("video", "gaussian", True)
  assert (ours.lpips_net, ours.lpips_range, ours.lpips_size) == ("alex", (-1.0, 1.0), 128)
  assert ours.best == "video"
  assert (ours.fvd_given, ours.fvd_trajectories, ours.fvd_repeat_real) == ("true", "each", False)


def test_mcvd_s_other_horizons() -> None:
  """Its rows of LGC-VD's Table 3; MCVD scores what it predicts, also where one frame is given."""
  base = PROTOCOLS["mcvd_bair"]
  for name, changes in (
    ("mcvd_bair_n14", {"num_frames": 14}),
    ("mcvd_bair_p1_n15", {"past": 1, "num_frames": 15, "first_scored": 1}),
  ):
    ours = PROTOCOLS[name]
    assert ours == dataclasses.replace(base, name=name, about=ours.about, **changes)


def test_moving_mnist() -> None:
  ours = PROTOCOLS["moving_mnist"]
  assert (ours.past, ours.num_frames, ours.first_scored, ours.trajectories) == (10, 10, 10, 1)
  assert (ours.mse, ours.ssim_window, ours.tasks, ours.num_videos) == (
    True, "uniform", ("prediction",), 256
  )  # fmt: skip
  longer, base = PROTOCOLS["moving_mnist_p2"], PROTOCOLS["standard"]
  changes = {"mse": True, "tasks": ("prediction",)}
  assert longer == dataclasses.replace(base, name=longer.name, about=longer.about, **changes)
  assert [p.name for p in PROTOCOLS.values() if p.mse] == ["moving_mnist", "moving_mnist_p2"]


def test_mcvd_on_sm_mnist() -> None:
  ours, base = PROTOCOLS["mcvd_smmnist"], PROTOCOLS["mcvd_bair"]
  changes = {"past": 5, "num_frames": 10, "first_scored": 5, "tasks": ("prediction",)}
  assert ours == dataclasses.replace(base, name=ours.name, about=ours.about, **changes)


def test_what_mcvd_s_frames_are_is_told_whole() -> None:
  true = np.arange(256)
  as_float = np.float32(2) * (true.astype(np.float32) / np.float32(255)) - np.float32(1)
  truncated = (np.float32(255) * ((as_float + np.float32(1)) / np.float32(2))).astype(np.uint8)
  assert set(true - truncated) == {0, 1}
  lower = f"{(truncated < true).sum()} of the 256 levels of its true frames are one lower"
  for name in ("mcvd_bair", "mcvd_cityscapes"):
    assert "differences included" in PROTOCOLS[name].about or lower in PROTOCOLS[name].about
  assert lower in PROTOCOLS["mcvd_bair"].about
  for word in ("rounded to 8 bits", "PSNR and FVD from floats", "SSIM and LPIPS", "truncated"):
    assert word in PROTOCOLS["mcvd_bair"].about


def test_table_2_s_interpolation() -> None:
  ours = PROTOCOLS["lgcvd_paper_bair_interpolation"]
  assert (ours.tasks, ours.best, ours.flip) == (("interpolation",), "video", False)
  assert (ours.gap, ours.video_frames, ours.trajectories, ours.num_videos) == (6, 8, 100, 256)
  assert (ours.sampler, ours.sampler_steps) == ("ddpm", 100)
  assert (ours.psnr, ours.ssim_window, ours.ssim_grey) == ("frames", "uniform", False)


def test_lossless_stores_are_asked_for_where_the_authors_have_them() -> None:
  for name in ("lgcvd_paper_cityscapes", "mcvd_cityscapes"):
    assert "--codec=png" in PROTOCOLS[name].about


@pytest.mark.parametrize("family", ["lgcvd_paper", "mcvd"])
def test_cityscapes_is_scored_as_bair_but_for_the_choice_of_videos(family: str) -> None:
  bair, city = (PROTOCOLS[f"{family}_{name}"] for name in ("bair", "cityscapes"))
  choice = {"mcvd": "spaced", "lgcvd_paper": "random"}[family]
  assert city == dataclasses.replace(bair, name=city.name, about=city.about, choice=choice)
  assert bair.choice == "random"  # of all there are


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"choice": "best"}, "unknown choice 'best'. Choose one of: random, spaced"),
    ({"psnr": "clip"}, "unknown psnr 'clip'. Choose one of: frames, video"),
    ({"best": "all"}, "unknown best 'all'. Choose one of: video, released_groups"),
    ({"fvd_given": "no"}, "unknown fvd_given 'no'. Choose one of: true, drawn"),
    ({"fvd_trajectories": "last"}, "Choose one of: first, all, each"),
    ({"first_scored": 1}, r"first scored frame \(1\) is none of the drawn ones, 2 to 29"),
    ({"first_scored": 30}, "is none of the drawn ones"),
    ({"tasks": ()}, "tasks none. Choose of: prediction, interpolation"),
    ({"tasks": ("infilling",)}, "tasks infilling. Choose of: prediction, interpolation"),
    ({"num_frames": 5}, "a gap of 6 frames and one on either side do not fit in videos of 7"),
  ],
)
def test_what_is_no_protocol(changes: dict, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    Protocol("mine", "A test's.", **changes)
