"""Progress and XLA traces of the training loop."""

import pathlib

import pytest

from tests.training import toy
from videodiff_jax.training import loop
from videodiff_jax.training.periodic import Trace


@pytest.fixture(autouse=True)
def told(caplog) -> None:
  caplog.set_level("INFO", logger="absl")


def train(folder: pathlib.Path, steps: int, trace: Trace, **changes: int) -> list[pathlib.Path]:
  """Trains the toy stage: the traces that are there then."""
  run = toy.run(folder, steps, trace=trace, **changes)
  assert loop.train(toy.make_stage(), run, toy.FROZEN, toy.batches, {}, lambda *_: None)
  return list((folder / "trace").glob("plugins/profile/*/*.xplane.pb"))


def test_the_chosen_steps_of_each_call_are_traced(tmp_path, caplog) -> None:
  (first,) = train(tmp_path, 6, Trace(first_step=2, num_steps=2))
  assert first.stat().st_size > 0 and f"XLA trace of 2 steps: {tmp_path}" in caplog.text
  # One that the last step cuts short is whole, too.
  assert len(train(tmp_path, 9, Trace(first_step=1, num_steps=100))) == 2


def test_nothing_is_traced_unasked_and_a_trace_that_never_began_is_told(tmp_path, caplog) -> None:
  assert not train(tmp_path, 2, Trace())
  assert "XLA trace" not in caplog.text
  assert not train(tmp_path, 4, Trace(first_step=50, num_steps=1))
  assert "No XLA trace: the call ended before step 52." in caplog.text


def test_progress_says_what_took_the_time(tmp_path, caplog) -> None:
  train(tmp_path, 6, Trace(), preview_every=3)
  assert "100.0% (6/6)" in caplog.text
  assert "% checkpoints" in caplog.text and "% previews" in caplog.text


def test_a_trace_needs_a_first_step() -> None:
  with pytest.raises(ValueError, match="first_step"):
    Trace(first_step=0, num_steps=1)
