"""Means that merge in any grouping."""

import chex
import numpy as np

from videodiff_jax.training import means

ROWS = [{"loss": np.float32(i), "error": np.float32(i * i)} for i in range(5)]


def test_mean_over_rows_is_numpy_s_in_the_rows_dtype() -> None:
  found = means.over(ROWS)
  assert list(found) == ["loss", "error"]
  chex.assert_type([*found.values()], np.float32)
  chex.assert_trees_all_close(found, {"loss": 2.0, "error": 6.0})
  assert means.over([]) == {}


def test_parts_of_unequal_size_merge_into_the_whole() -> None:
  first, second = (means.collect(rows[0]) for rows in (ROWS, ROWS[1:]))
  whole = first.merge(second.merge(means.collect(ROWS[2])))
  chex.assert_trees_all_equal(whole.compute(), means.over(ROWS[:3]))


def test_figures_of_many_clips_keep_their_shape() -> None:
  rows = [{"change": np.full(3, i, np.float64)} for i in (1, 2)]
  np.testing.assert_array_equal(means.over(rows)["change"], np.full(3, 1.5))
