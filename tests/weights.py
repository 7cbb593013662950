"""Published weights that a test needs: it is skipped where their package is not installed."""

import pytest

from videodiff_jax.pretrained.files import restricted_pickle


def require(weights: restricted_pickle.WeightFile) -> None:
  try:
    restricted_pickle.locate(weights)
  except FileNotFoundError as error:
    pytest.skip(str(error))
