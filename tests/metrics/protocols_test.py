"""Named recipes: immutable, varied as the papers vary them, and refused if wrong."""

import dataclasses

import pytest

from videodiff_jax.metrics.protocols import PROTOCOLS, PredictionProtocol


def test_a_recipe_has_its_name_and_cannot_be_changed() -> None:
  for name, protocol in PROTOCOLS.items():
    assert protocol.name == name
  with pytest.raises(TypeError):
    PROTOCOLS["mine"] = PROTOCOLS["quick"]
  with pytest.raises(dataclasses.FrozenInstanceError):
    PROTOCOLS["quick"].num_videos = 2


def test_longer_moving_mnist_is_the_standard_with_its_squared_error() -> None:
  longer, base = PROTOCOLS["moving_mnist_p2"], PROTOCOLS["standard"]
  changes = {"mse": True, "tasks": ("prediction",)}
  assert longer == dataclasses.replace(base, name=longer.name, about=longer.about, **changes)


def test_mcvd_s_other_horizons() -> None:
  """Its rows of LGC-VD's Table 3; MCVD scores what it predicts, also where one frame is given."""
  base = PROTOCOLS["mcvd_bair"]
  for name, changes in (
    ("mcvd_bair_n14", {"num_frames": 14}),
    ("mcvd_bair_p1_n15", {"past": 1, "num_frames": 15, "first_scored": 1}),
  ):
    ours = PROTOCOLS[name]
    assert ours == dataclasses.replace(base, name=name, about=ours.about, **changes)


def test_mcvd_on_sm_mnist() -> None:
  ours, base = PROTOCOLS["mcvd_smmnist"], PROTOCOLS["mcvd_bair"]
  changes = {"past": 5, "num_frames": 10, "first_scored": 5, "tasks": ("prediction",)}
  assert ours == dataclasses.replace(base, name=ours.name, about=ours.about, **changes)


@pytest.mark.parametrize("family", ["lgcvd_paper", "mcvd"])
def test_cityscapes_is_scored_as_bair_but_for_the_choice_of_videos(family: str) -> None:
  bair, city = (PROTOCOLS[f"{family}_{name}"] for name in ("bair", "cityscapes"))
  choice = {"mcvd": "spaced", "lgcvd_paper": "random"}[family]
  assert city == dataclasses.replace(bair, name=city.name, about=city.about, choice=choice)
  assert bair.choice == "random"  # of all there are


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"choice": "best"}, "'mine': 'best'. Choose one of: random, spaced"),
    ({"psnr": "clip"}, "'mine': 'clip'. Choose one of: frames, video"),
    ({"best": "all"}, "'mine': 'all'. Choose one of: video, released_groups"),
    ({"fvd_given": "no"}, "'mine': 'no'. Choose one of: true, drawn"),
    ({"fvd_trajectories": "last"}, "Choose one of: first, all, each"),
    ({"first_scored": 1}, r"first scored frame \(1\) is none of the drawn ones, 2 to 29"),
    ({"first_scored": 30}, "is none of the drawn ones"),
    ({"tasks": ()}, "'none'. Choose one of: prediction, interpolation"),
    ({"tasks": ("infilling",)}, "'infilling'. Choose one of: prediction, interpolation"),
    ({"num_frames": 5}, "a gap of 6 frames and one on either side do not fit in videos of 7"),
  ],
)
def test_what_is_no_protocol(changes: dict, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    PredictionProtocol("mine", "A test's.", **changes)
