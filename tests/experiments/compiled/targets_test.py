"""Which machines can be compiled for, and what is said of the others."""

import re

import pytest

from experiments.compiled import targets
from experiments.compiled.cards import CARDS, description
from experiments.setup.errors import UserError


@pytest.fixture
def nothing_installed(monkeypatch) -> None:
  monkeypatch.setattr(targets, "_version", lambda package: "")


@pytest.mark.parametrize("name", ["v5e:3x3", "v5e", "v7:2x2", "h100:", "h100:0", "k80:8"])
def test_an_unknown_target_is_told_with_all_there_are(name: str) -> None:
  with pytest.raises(UserError, match=re.escape(repr(name))) as told:
    targets.find(name)
  assert "v5e:2x4" in str(told.value) and "h100:8" in str(told.value)


def test_the_compiler_for_tpus_is_named_with_the_release_that_belongs_to_jax(
  nothing_installed,
) -> None:
  with pytest.raises(UserError, match=r"pip install --no-deps 'libtpu==[\d.]+\*'.*extra tpu"):
    targets.find("v5e:2x2")


def test_the_compiler_for_gpus_is_named(nothing_installed) -> None:
  with pytest.raises(UserError, match=r"jax-cuda12-pjrt==[\d.]+ jax-cuda12-plugin==[\d.]+"):
    targets.find("h100:8")


def test_gpus_fill_their_machines() -> None:
  with pytest.raises(UserError, match="12 GPUs do not fill machines of 8"):
    targets.find("h200:12")


@pytest.mark.parametrize("name", CARDS)
def test_a_card_s_description_has_its_memory_and_kind(name: str) -> None:
  text = description(CARDS[name])
  assert f"device_memory_size: {CARDS[name].memory}\n" in text
  assert f'device_description_str: "{CARDS[name].kind}"' in text
  assert text.count("{") == text.count("}")
