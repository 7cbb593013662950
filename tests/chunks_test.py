import numpy as np
import pytest

from videodiff_jax.chunks import chunked, in_chunks


@pytest.mark.parametrize("total", [1, 4, 5, 8])
def test_a_function_of_whole_chunks_is_one_of_any_number_of_rows(total: int) -> None:
  """It sees four rows at a time, the last chunk's last row again, and its results are cut."""
  a, b = np.arange(total), np.arange(3 * total).reshape(total, 3)
  seen = []

  def function(a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    seen.append(a)
    return {"sum": a + b.sum(1), "same": b}

  found = in_chunks(function, (a, b), 4)
  np.testing.assert_array_equal(found["sum"], a + b.sum(1))
  np.testing.assert_array_equal(found["same"], b)
  assert [len(chunk) for chunk in seen] == [4] * -(-total // 4)
  assert (seen[-1][-(-total % 4) or 4 :] == total - 1).all()


def test_chunks_come_one_by_one() -> None:
  calls = []
  stream = chunked(lambda x: calls.append(x) or x, (np.arange(6),), 4)
  np.testing.assert_array_equal(next(stream), np.arange(4))
  assert len(calls) == 1
  np.testing.assert_array_equal(next(stream), [4, 5])
