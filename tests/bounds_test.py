"""The lowest versions that are tested are those that setup.py allows."""

import re

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.helpers import ROOT, setup_arguments

SETUP = setup_arguments()
# `beam` wants an environment of its own, the site and the emulators of object storage are those of
# the newest versions alone, and the accelerators' extras are jax again.
NOT_TESTED = {"beam", "buckets", "cloud", "docs", "cuda12", "cuda13", "tpu"}


def lowest(requirements: list[str]) -> dict[str, Version]:
  """Each package's lower bound, or its only version."""
  found = {}
  for requirement in map(Requirement, requirements):
    (bound,) = [s.version for s in requirement.specifier if s.operator in (">=", "==")]
    found[canonicalize_name(requirement.name)] = Version(bound)
  return found


def test_the_lowest_leg_holds_every_lower_bound() -> None:
  requirements = list(SETUP["install_requires"])
  for extra, names in SETUP["extras_require"].items():
    requirements += [] if extra in NOT_TESTED else names
  lines = (ROOT / "tests" / "constraints-lowest.txt").read_text().splitlines()
  pinned = [line for line in lines if not line.startswith("#")]
  assert lowest(pinned) == lowest(requirements)
  assert all("==" in line for line in pinned)


def test_every_extra_of_jax_has_its_bounds() -> None:
  (jax,) = [r for r in map(Requirement, SETUP["install_requires"]) if r.name == "jax"]
  for extra in ("cuda12", "cuda13", "tpu"):
    (own,) = map(Requirement, SETUP["extras_require"][extra])
    assert (own.name, own.extras, own.specifier) == ("jax", {extra}, jax.specifier)


def test_the_legs_are_the_first_and_last_python() -> None:
  """Versions that `python_requires` admits."""
  legs = re.findall(r"^leg (3\.\d+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
  admitted = Requirement(f"python{SETUP['python_requires']}").specifier
  minors = [f"3.{i}" for i in range(30) if f"3.{i}" in admitted]
  assert legs == [minors[0], minors[-1]]
