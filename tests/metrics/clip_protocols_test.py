"""Protocols of sets of clips: immutable, variations of each other, and refused if wrong."""

import dataclasses

import pytest

from videodiff_jax.metrics.clip_protocols import CLIP_PROTOCOLS, ClipProtocol


def test_a_recipe_has_its_name_and_cannot_be_changed() -> None:
  for name, protocol in CLIP_PROTOCOLS.items():
    assert protocol.name == name
  with pytest.raises(TypeError):
    CLIP_PROTOCOLS["mine"] = CLIP_PROTOCOLS["quick"]
  with pytest.raises(dataclasses.FrozenInstanceError):
    CLIP_PROTOCOLS["quick"].num_real = 2


@pytest.mark.parametrize(
  ("name", "changes"),
  [
    ("styleganv_fvd2048_128f", {"num_frames": 128}),
    ("glober_reconstruction", {"drawn": "reconstruction"}),
  ],
)
def test_the_papers_sets_are_styleganv_s_but_for(name: str, changes: dict) -> None:
  base, ours = CLIP_PROTOCOLS["styleganv_fvd2048_16f"], CLIP_PROTOCOLS[name]
  assert ours == dataclasses.replace(base, name=name, about=ours.about, **changes)


def test_what_is_no_protocol() -> None:
  for changes in ({"drawn": "painted"}, {"covariance": "none"}):
    with pytest.raises(ValueError, match=f"Unknown {next(iter(changes))} in protocol 'mine'"):
      ClipProtocol("mine", "A test's.", **changes)
