"""What is said of a name that is none of the choices, and of many names."""

import pytest

from videodiff_jax.choices import check_choice, summarise


def test_a_wrong_name_is_told_with_the_nearest_and_all_choices() -> None:
  check_choice("sampler", "ddim", ("ddpm", "ddim"))
  with pytest.raises(ValueError) as told:
    check_choice("sampler", "dimm", ("ddpm", "ddim"))
  assert str(told.value) == (
    "Unknown sampler 'dimm'. Did you mean 'ddim'? Choose one of: ddpm, ddim."
  )
  with pytest.raises(ValueError, match=r"^Unknown sampler None\. Choose one of: ddpm, ddim\.$"):
    check_choice("sampler", None, iter(("ddpm", "ddim")))


def test_many_names_are_cut() -> None:
  assert summarise("ab") == "a, b"
  assert summarise("abc", most=2) == "a, b, and 1 more"
  assert summarise("abc", most=2, separator="; ") == "a; b; and 1 more"
