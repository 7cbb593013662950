"""The registry of protocols: one of each kind and name."""

import pytest

from videodiff_jax.metrics.clip_protocols import CLIP_PROTOCOLS, ClipProtocol
from videodiff_jax.metrics.configured_protocols import LADDER
from videodiff_jax.metrics.protocols import PROTOCOLS, PredictionProtocol
from videodiff_jax.metrics.registry import REGISTRY, Registry


def test_two_of_a_name_are_refused() -> None:
  registry, mine = Registry(), PredictionProtocol("mine", "A test's.")
  assert registry.add(PredictionProtocol, mine) == {"mine": mine}
  with pytest.raises(ValueError, match="Two protocols 'mine' of kind PredictionProtocol"):
    registry.add(PredictionProtocol, PredictionProtocol("mine", "Another."))


def test_a_name_of_several_kinds_is_never_taken_for_one_of_them() -> None:
  assert REGISTRY.find("mcvd_bair") is PROTOCOLS["mcvd_bair"]
  assert REGISTRY.find("glober_reconstruction") is CLIP_PROTOCOLS["glober_reconstruction"]
  assert REGISTRY.find("ladder") is LADDER and LADDER.written() == "ladder"
  with pytest.raises(ValueError, match="'quick' is in ClipProtocol and PredictionProtocol"):
    REGISTRY.find("quick")
  with pytest.raises(ValueError, match="'quack' is in no kind"):
    REGISTRY.find("quack")
  assert ClipProtocol("quick", "Of a test.").written()["num_real"] == 2048
