"""What every part of the campaign begins with."""

import pathlib
import shutil

import pytest

from tests.faults import commands, runs
from tests.faults.ledger import Ledger


@pytest.fixture(scope="session")
def folder() -> pathlib.Path:
  """Beside the ledger: runs that nobody disturbs are made there once."""
  return Ledger().file.parent


@pytest.fixture(scope="session")
def store(folder) -> pathlib.Path:
  """Forty videos, as `data.prepare` leaves them undisturbed."""
  return runs.undisturbed(runs.preparation(folder / "prepared" / "store"))[0] / "store"


@pytest.fixture(scope="session")
def workdirs(folder, store) -> dict[str, pathlib.Path]:
  """System -> a workdir whose training nobody disturbed."""
  return {system: runs.trained(system, folder, store)[0] for system in runs.STAGES}


@pytest.fixture(scope="session")
def cache(folder, store, workdirs) -> pathlib.Path:
  """What `--mode=cache` writes of the global features, undisturbed."""
  workdir = folder / "undisturbed_cache"
  if not workdir.exists():
    shutil.copytree(workdirs["glober"], workdir)
    command = runs.caching(workdir, store)
    outcome = commands.run(command.module, command.argv, command.log)
    assert outcome.verdict == "accepted", outcome.said
  return workdir / runs.CACHE
