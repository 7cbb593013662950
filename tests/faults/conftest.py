"""What every part of the campaign begins with."""

import pathlib

import pytest

from tests.faults import runs
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
