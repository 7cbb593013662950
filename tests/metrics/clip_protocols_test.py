"""Protocols of sets of clips: the published ones with every setting of theirs."""

import dataclasses

import pytest

from videodiff_jax.metrics.clip_protocols import CLIP_PROTOCOLS, ClipProtocol


def test_names() -> None:
  assert set(CLIP_PROTOCOLS) == {
    "styleganv_fvd2048_16f", "styleganv_fvd2048_128f", "glober_reconstruction", "quick",
    "lgcvd_paper_bair_generation",
  }  # fmt: skip
  for name, protocol in CLIP_PROTOCOLS.items():
    assert protocol.name == name and protocol.about
  with pytest.raises(TypeError):
    CLIP_PROTOCOLS["mine"] = CLIP_PROTOCOLS["quick"]
  with pytest.raises(dataclasses.FrozenInstanceError):
    CLIP_PROTOCOLS["quick"].num_real = 2


@pytest.mark.parametrize(
  ("name", "frames", "drawn"),
  [
    ("styleganv_fvd2048_16f", 16, "generated"),
    ("styleganv_fvd2048_128f", 128, "generated"),
    ("glober_reconstruction", 16, "reconstruction"),
  ],
)
def test_styleganv(name: str, frames: int, drawn: str) -> None:
  ours = CLIP_PROTOCOLS[name]
  assert (ours.num_real, ours.num_drawn, ours.num_frames) == (2048, 2048, frames)
  assert (ours.drawn, ours.splits, ours.jpeg_quality) == (drawn, ("train", "test"), 75)
  assert (ours.covariance, ours.i3d_resize) == ("population", "torch")


def test_what_is_no_protocol() -> None:
  for changes in ({"drawn": "painted"}, {"covariance": "none"}):
    with pytest.raises(ValueError, match=f"unknown {next(iter(changes))} .* Choose one of: "):
      ClipProtocol("mine", "A test's.", **changes)
