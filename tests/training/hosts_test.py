"""How hosts find each other. What they agree on is tested by two processes: process.py."""

import jax
import pytest

from videodiff_jax.training import hosts

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


@pytest.fixture
def joined(monkeypatch) -> list[tuple]:
  """What JAX is initialised with, in place of waiting for others."""
  for name in (ADDRESS, COUNT, INDEX, "TPU_WORKER_HOSTNAMES", "SLURM_NTASKS"):
    monkeypatch.delenv(name, raising=False)
  calls: list[tuple] = []
  monkeypatch.setattr(jax.distributed, "initialize", lambda *settings: calls.append(settings))
  return calls


@pytest.mark.parametrize(
  ("variables", "expected"),
  [
    ({}, []),
    ({"SLURM_NTASKS": "1", "TPU_WORKER_HOSTNAMES": "localhost"}, []),
    ({ADDRESS: "first:1234", COUNT: "4", INDEX: "3"}, [("first:1234", 4, 3)]),
    ({ADDRESS: "first:1234", "SLURM_NTASKS": "2"}, [("first:1234", None, None)]),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, [(None, None, None)]),
  ],
)
def test_joins_the_hosts_that_the_environment_names(
  joined, monkeypatch, variables, expected
) -> None:
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  hosts.join()
  assert joined == expected
  assert hosts.several() == bool(expected)


@pytest.mark.parametrize(
  ("variables", "message"),
  [
    ({ADDRESS: "first:1234"}, f"not set: {COUNT}, {INDEX}. Several hosts need all three"),
    ({COUNT: "2", INDEX: "0"}, f"not set: {ADDRESS}. Several"),
    ({ADDRESS: "first:1234", COUNT: "2", INDEX: ""}, f"not set: {INDEX}. Several"),
    ({ADDRESS: "first", COUNT: "2", INDEX: "0"}, f"{ADDRESS} is 'first': the first host's HOST:"),
    ({ADDRESS: "first:1", COUNT: "two", INDEX: "0"}, f"{COUNT} is 'two': a whole number"),
    ({ADDRESS: "first:1", COUNT: "2", INDEX: "2"}, "numbered from 0 to 1"),
  ],
)
def test_variables_set_by_halves(joined, monkeypatch, variables, message) -> None:
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(ValueError, match=message):
    hosts.join()
  assert not joined
