"""How hosts find each other. What they agree on is tested by two processes: process.py."""

import jax
import pytest

from videodiff_jax.training import hosts

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


SLURM = {
  "SLURM_NTASKS": "4",
  "SLURM_PROCID": "2",
  "SLURM_LOCALID": "0",
  "SLURM_JOB_ID": "77",
  "SLURM_STEP_NODELIST": "node[1-4]",
}
OPEN_MPI = {
  "OMPI_COMM_WORLD_SIZE": "2",
  "OMPI_COMM_WORLD_RANK": "1",
  "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
TPU = {"TPU_WORKER_HOSTNAMES": "a,b"}
ALL_VARIABLES = (ADDRESS, COUNT, INDEX, "SLURM_PTY_PORT", *TPU, *SLURM, *OPEN_MPI)


@pytest.fixture
def joined(monkeypatch) -> list[tuple]:
  """What JAX is initialised with, in place of waiting for others."""
  for name in ALL_VARIABLES:
    monkeypatch.delenv(name, raising=False)
  calls: list[tuple] = []
  monkeypatch.setattr(jax.distributed, "initialize", lambda *settings, **_: calls.append(settings))
  return calls


@pytest.mark.parametrize(
  ("variables", "expected", "index"),
  [
    ({}, [], 0),
    ({"SLURM_NTASKS": "1", "TPU_WORKER_HOSTNAMES": "localhost"}, [], 0),
    ({ADDRESS: "first:1234", COUNT: "4", INDEX: "3"}, [("first:1234", 4, 3)], 3),
    (SLURM, [(None, None, None)], 2),
    (SLURM | {ADDRESS: "first:1234"}, [("first:1234", None, None)], 2),
    (OPEN_MPI, [(None, None, None)], 1),
    (TPU, [(None, None, None)], 0),
  ],
)
def test_joins_the_hosts_that_the_environment_names(
  joined, monkeypatch, variables, expected, index
) -> None:
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  assert hosts.index() == index
  hosts.join()
  assert joined == expected
  assert hosts.several() == bool(expected)


@pytest.mark.parametrize(
  ("variables", "said"),
  [
    *((SLURM | {name: ""}, f"{name} not set") for name in SLURM if name != "SLURM_NTASKS"),
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "SLURM_LOCALID, SLURM_JOB_ID, SLURM_STEP"),
    (SLURM | {"SLURM_PTY_PORT": "4711"}, "a shell of srun --pty"),
    (SLURM | {"SLURM_NTASKS": ""}, ""),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_LOCAL_RANK not set"),
    ({"OMPI_COMM_WORLD_SIZE": ""}, ""),
  ],
)
def test_a_launcher_s_variables_by_halves_name_nobody(
  joined, monkeypatch, caplog, variables, said
) -> None:
  """As in a batch script that does not use srun: one process, which tells so, and never waits."""
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  with caplog.at_level("WARNING", logger="absl"):
    hosts.join()
  assert not joined and not hosts.several() and not hosts.index()
  assert said in caplog.text and bool(said) == bool(caplog.records)


def test_who_does_not_come_is_told(joined, monkeypatch) -> None:
  def late(*_: object, **__: object) -> None:
    raise RuntimeError("DEADLINE_EXCEEDED: Barrier timed out\nmany lines")

  monkeypatch.setattr(jax.distributed, "initialize", late)
  for name, value in SLURM.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(ValueError, match=r"The 4 processes .* did not find each other .*timed out"):
    hosts.join()


@pytest.mark.parametrize(
  ("variables", "message"),
  [
    ({ADDRESS: "first:1234"}, f"^{COUNT}, {INDEX} not set. Several hosts need all of"),
    ({COUNT: "2", INDEX: "0"}, f"^{ADDRESS} not set. Several"),
    ({ADDRESS: "first:1234", COUNT: "2", INDEX: ""}, f"^{INDEX} not set. Several"),
    ({ADDRESS: "first", COUNT: "2", INDEX: "0"}, f"{ADDRESS} must be the first host's HOST:"),
    ({ADDRESS: "first:1", COUNT: "two", INDEX: "0"}, f"{COUNT} must be a whole number, not 'two'"),
    ({ADDRESS: "first:1", COUNT: "2", INDEX: "2"}, "numbered from 0 to 1"),
    ({"SLURM_NTASKS": "many"}, "SLURM_NTASKS must be a whole number, not 'many'"),
  ],
)
def test_variables_set_by_halves(joined, monkeypatch, variables, message) -> None:
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(ValueError, match=message):
    hosts.join()
  assert not joined
