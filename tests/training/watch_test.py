"""Who is gone, by a store and a clock of the test's own."""

import os
import socket
from collections.abc import Iterator

import pytest

from tests import processes
from tests.training.coordinator import Store
from videodiff_jax.training import watch


@pytest.fixture
def listening() -> Iterator[str]:
  """The address of a coordinator that lives."""
  with socket.create_server(("127.0.0.1", 0)) as server:
    yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def clock(monkeypatch) -> list[float]:
  now = [0.0]
  monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
  monkeypatch.setattr(watch.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
  return now


@pytest.fixture
def ended(monkeypatch) -> list[int]:
  found: list[int] = []
  monkeypatch.setattr(os, "_exit", found.append)
  return found


def test_a_host_whose_count_stands_still_is_gone(clock, ended, capsys, listening) -> None:
  store = Store()
  hosts = [watch.Watch(store, index, 3, patience=60.0, coordinator=listening) for index in range(3)]
  for second in range(0, 80, 2):
    clock[0] = second
    for host in hosts if second < 10 else hosts[:2]:
      host.beat()
    hosts[0].judge()
    assert bool(ended) == (second > 10 + 60)  # the first sees the last beat in its next
    if ended:
      break
  said = capsys.readouterr().err
  assert said.startswith(f"Error: host 2 (pid {os.getpid()} on ") and said.count("\n") == 1
  assert "gave no sign of life for 60 s" in said and ended == [1]


def test_a_host_that_just_went_is_named_within_a_few_beats(clock, listening) -> None:
  store = Store()
  hosts = [
    watch.Watch(store, index, 2, patience=300.0, coordinator=listening) for index in range(2)
  ]
  for host in hosts:
    host.beat()
  hosts[0].beat()
  assert hosts[0].name_the_missing().startswith("host 1 (pid ")
  assert clock[0] < 10


def test_without_the_coordinator_it_is_gone(clock, ended, capsys, listening) -> None:
  store = Store()
  first, second = (
    watch.Watch(store, index, 2, patience=60.0, coordinator=listening) for index in range(2)
  )
  first.beat()
  second.beat()
  store.down, clock[0] = True, 50.0
  second._coordinator = f"127.0.0.1:{processes.free_port()}"
  assert second.name_the_missing().startswith("host 0 (pid ") and clock[0] == 50.0
  clock[0] = 61.0
  second.beat()
  second.judge()
  assert ended == [1] and "host 0 (pid" in capsys.readouterr().err


def test_an_abort_by_jax_s_runtime_names_the_first_host(clock, ended, capsys, listening) -> None:
  """Called as the handler of SIGABRT is; the handler itself is tested by a killed first host."""
  store = Store()
  first, second = (
    watch.Watch(store, index, 2, patience=60.0, coordinator=listening) for index in range(2)
  )
  first.beat()
  second.beat()
  second.aborted(0)  # which is no signal
  assert not ended and not capsys.readouterr().err  # it lives, so the reason is another one
  second._coordinator = f"127.0.0.1:{processes.free_port()}"
  second.aborted(0)
  said = capsys.readouterr().err
  assert said.startswith("Error: host 0 (pid ") and " is gone, so this process ends" in said
  assert said.count("\n") == 1 and ended == [1]
  second.name_the_missing()  # by the main thread, which says so itself
  second.aborted(0)
  assert ended == [1, 1] and not capsys.readouterr().err
