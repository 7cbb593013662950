"""The benchmark of a borrowed accelerator: its parts in small, its budget, and that it resumes."""

import importlib
import itertools
import json
import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from experiments.benchmarks.accelerator import __main__ as accelerator
from experiments.benchmarks.accelerator import checks, config_dict, stand_ins, times
from experiments.benchmarks.accelerator.__main__ import Part
from experiments.setup.errors import UserError
from tests.faults import toys
from tests.helpers import ROOT
from videodiff_jax.models import attention

MACHINE = {"device": "abacus"}


class Clock:
  """Seconds that pass where a part says so."""

  def __init__(self) -> None:
    self.now, self.ran = 0.0, []

  def __call__(self) -> float:
    return self.now

  def part(self, name: str, estimate: float, takes: float, figures: Any = None) -> Part:
    def run() -> dict:
      self.now += takes
      self.ran.append(name)
      if isinstance(figures, BaseException):
        raise figures
      return figures or {"passed": True, "rows": {"x": {"difference": 0.0, "tolerance": 1.0}}}

    return Part(name, estimate, run)


def results(folder: pathlib.Path) -> dict[str, Any]:
  return json.loads((folder / accelerator.FILE).read_text())


def test_what_does_not_fit_is_passed_over_and_comes_next_time(tmp_path, caplog) -> None:
  caplog.set_level("INFO", logger="absl")
  clock = Clock()
  queue = [clock.part("a", 30, 40), clock.part("b", 50, 50), clock.part("c", 20, 20)]
  accelerator.run(tmp_path, 1, queue, MACHINE, clock)
  assert clock.ran == ["a", "c"] and results(tmp_path)["parts"].keys() == {"a", "c"}
  assert "Passed over: b takes about 50 s, 20 s are left." in caplog.text
  accelerator.run(tmp_path, 1, queue, MACHINE, clock)
  assert clock.ran == ["a", "c", "b"]
  assert results(tmp_path)["parts"]["b"]["part_s"] == 50


def test_it_is_written_after_each_part_and_goes_on(tmp_path) -> None:
  """What ended the process, or failed, is tried again after the others."""
  clock = Clock()
  queue = [
    clock.part("a", 1, 1),
    clock.part("b", 1, 1, ValueError("out of beads\nmany lines")),
    clock.part("c", 1, 1, KeyboardInterrupt()),
    clock.part("d", 1, 1),
  ]
  with pytest.raises(KeyboardInterrupt):
    accelerator.run(tmp_path, 1, queue, MACHINE, clock)
  found = results(tmp_path)
  assert found["parts"].keys() == {"a", "b"} and found["machine"] == MACHINE
  assert found["parts"]["b"]["error"] == "ValueError: out of beads"
  queue[1:3] = [clock.part("b", 1, 1), clock.part("c", 1, 1)]
  accelerator.run(tmp_path, 1, queue, MACHINE, clock)
  assert clock.ran == ["a", "b", "c", "d", "b", "c"]
  assert all("error" not in part for part in results(tmp_path)["parts"].values())


def test_results_of_another_machine_are_not_mixed(tmp_path) -> None:
  accelerator.run(tmp_path, 1, [], MACHINE)
  with pytest.raises(UserError, match="another machine"):
    accelerator.run(tmp_path, 1, [], {"device": "slide rule"})


def test_parts_have_one_name_each_and_the_paper_s_sizes() -> None:
  whole, small = accelerator.parts(False), accelerator.parts(True)
  names = [part.name for part in whole]
  assert len({*names}) == len(names) and names == [part.name for part in small]
  assert all(part.seconds > 0 for part in whole) and not any(part.seconds for part in small)
  # About two times what a lease of 25 minutes holds at most, so that the order matters.
  assert sum(part.seconds for part in whole) < 50 * 60
  for part in whole:
    if not part.name.startswith("check"):
      assert "smoke" not in part.run.args[1], part.name


def test_a_difference_is_found(monkeypatch) -> None:
  """A wrong form of attention on one of the two devices."""
  right, traced = attention.attend, itertools.count()

  def wrong(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return right(q, k, v) * (1.0 if next(traced) % 2 == 0 else 1.001)  # traced for each in turn

  assert checks.attentions()["passed"]
  monkeypatch.setattr(attention, "attend", wrong)
  found = checks.attentions()
  assert not found["passed"] and "DIFFERS" in accelerator.told(found)


def test_differences() -> None:
  a = {"x": jnp.array([1.0, -4.0]), "y": jnp.zeros(2)}
  assert checks.difference(a, a) == 0
  b = a | {"y": jnp.array([0.0, 0.02])}
  assert checks.difference(a, b) == pytest.approx(0.005)
  assert checks.difference(a, b, relative=False) == pytest.approx(0.02)
  assert checks.difference(a, a | {"y": jnp.array([0.0, np.nan])}) == float("inf")


def test_a_training_step_is_timed() -> None:
  with toys.installed():
    figures = times.training("glober_digits", "smoke", "generator", 4)
  assert figures["batch_size"] == 2 and len(figures["all_s"]) == 5 and figures["step_s"] > 0
  assert figures["tflop_per_step"] > 0 and figures["temporaries_gb"] > 0
  assert figures["mfu"] is None  # no peak is known of a CPU
  assert "a step of 2 clips" in accelerator.told(figures)


CONFIGS = sorted(
  path.stem for path in (ROOT / "configs").glob("*.py") if "common" not in path.stem
)[1:]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_stand_in_of_ml_collections_holds_every_configuration(name, monkeypatch) -> None:
  expected = importlib.import_module(f"configs.{name}").get_config("smoke")
  with monkeypatch.context() as patch:
    for module in [each for each in sys.modules if each.startswith("configs")]:
      patch.delitem(sys.modules, module)
    patch.setattr(ml_collections, "ConfigDict", config_dict.ConfigDict)
    found = importlib.import_module(f"configs.{name}").get_config("smoke")
  assert isinstance(found, config_dict.ConfigDict)
  assert json.loads(found.to_json()) == json.loads(expected.to_json())
  copied = found.copy_and_resolve_references()
  copied.data.image_size = 1
  frozen = config_dict.FrozenConfigDict(found)
  assert found.data.image_size != 1 and frozen.data.image_size == found.data.image_size
  assert frozen.to_dict() == ml_collections.FrozenConfigDict(expected).to_dict()


# What a machine with JAX, Flax, optax and orbax alone lacks, beside what nothing here asks for.
MISSING = (*stand_ins.REPLACED, "av", "matplotlib", "sklearn", "tensorflow", "torch")
BARE = f"""
import importlib.machinery, runpy, sys

class Bare(importlib.machinery.PathFinder):
  @classmethod
  def find_spec(cls, name, path=None, target=None):
    if name.partition(".")[0] in {MISSING}:
      return None
    return super().find_spec(name, path, target)

sys.meta_path = [Bare if each is importlib.machinery.PathFinder else each for each in sys.meta_path]
sys.argv[0] = "accelerator"
runpy.run_module("experiments.benchmarks.accelerator", run_name="__main__")
"""


def run_bare(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
  words = [sys.executable, "-c", BARE, f"--out={folder}", *arguments]
  return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=1500)


def test_nothing_that_is_missing_is_needed(tmp_path) -> None:
  """Every module that the parts are made of is imported; no minute is left for them."""
  ended = run_bare(tmp_path, "--minutes=0.001")
  assert ended.returncode == 0, ended.stderr
  assert f"not needed: {', '.join(stand_ins.REPLACED)}." in ended.stderr
  lines = ended.stdout.splitlines()
  assert len(lines) == len(accelerator.parts(False))
  assert all(line.endswith(": not run") for line in lines)


@pytest.mark.slow
def test_the_whole_command_in_small_on_a_bare_machine(tmp_path) -> None:
  ended = run_bare(tmp_path, "--smoke")
  assert ended.returncode == 0, ended.stderr[-4000:]
  done = results(tmp_path)["parts"]
  assert done.keys() == {part.name for part in accelerator.parts(True)}
  assert "not run" not in ended.stdout and "DIFFERS" not in ended.stdout
  # The second time there is nothing to do.
  again = run_bare(tmp_path, "--smoke")
  assert again.returncode == 0 and again.stdout == ended.stdout
  assert results(tmp_path)["parts"] == done
