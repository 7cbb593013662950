"""Named recipes: complete, immutable, and the published ones with every setting of theirs."""

import dataclasses

import pytest

from videodiff_jax.metrics.protocols import PROTOCOLS, Protocol


def test_names() -> None:
  assert set(PROTOCOLS) == {
    "standard", "quick", "smoke", "lgcvd_paper_bair", "lgcvd_paper_cityscapes", "mcvd_bair",
    "mcvd_cityscapes", "lgcvd_paper_cityscapes_p1", "lgcvd_paper_bair_n14",
    "lgcvd_paper_bair_p1_n15",
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
  ],
)
def test_what_is_no_protocol(changes: dict, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    Protocol("mine", "A test's.", **changes)
