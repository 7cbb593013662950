"""Who has come: hosts that are threads of one process, on loopback."""

import os
import socket
import threading
import time

import pytest

from tests import processes
from videodiff_jax.training import roll_call
from videodiff_jax.training.launchers import Place


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
  for name, value in (("_GRACE", 0.3), ("_PAUSE", 0.01), ("_WORD", 0.3)):
    monkeypatch.setattr(roll_call, name, value)


def call(address: str, *who: tuple[int, int], timeout: float = 30.0) -> list[str]:
  """What each host of these counts and indices says at the end: '' if all have come."""
  said = [""] * len(who)

  def run(number: int, count: int, index: int) -> None:
    try:
      roll_call.wait(Place(address, count, index), timeout)
    except ValueError as error:
      said[number] = str(error)

  threads = [threading.Thread(target=run, args=(i, *one), daemon=True) for i, one in enumerate(who)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(60)
  assert not any(thread.is_alive() for thread in threads)
  return said


@pytest.fixture
def address() -> str:
  return f"127.0.0.1:{processes.free_port()}"


def test_all_come(address) -> None:
  assert call(address, (3, 2), (3, 0), (3, 1)) == ["", "", ""]
  assert call(address, (1, 0)) == [""]
  with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
    pass  # the port is free for JAX's service


def test_who_does_not_come_is_named_by_all(address) -> None:
  expected = "Hosts 1, 3 did not come within 0 s (--host_timeout). Start all hosts at once."
  assert call(address, (4, 0), (4, 2), timeout=0.4) == [expected] * 2


def test_the_first_host_does_not_come(address) -> None:
  (said,) = call(address, (2, 1), timeout=0.1)
  assert said.startswith("Host 0 did not come within 0 s")
  assert f"looked for it at {address} (" in said


def test_a_port_that_is_taken(address) -> None:
  port = int(address.rpartition(":")[2])
  with socket.create_server(("", port)):
    (said,) = call(address, (2, 0), timeout=0.1)
  assert said.startswith(f"The first host cannot listen at port {port} (Address already in use)")


@pytest.mark.parametrize(
  ("others", "said"),
  [
    ([(3, 1), (3, 1)], "were started as host 1. Start all hosts with the same settings"),
    ([(2, 1)], "Host 1 (HERE) was started as one of 2, "),
  ],
)
def test_hosts_that_do_not_fit_together(address, others, said) -> None:
  # The parameters name no process, as each worker of pytest-xdist must collect the same tests.
  said = said.replace("HERE", f"pid {os.getpid()} on {socket.gethostname()}")
  assert all(said in one for one in call(address, (3, 0), *others))


def test_strangers_and_hosts_that_left_are_not_counted(address) -> None:
  found: list[str] = []
  first = threading.Thread(target=lambda: found.extend(call(address, (3, 0))), daemon=True)
  first.start()
  for line in (b"PRI * HTTP/2.0\r\n", b'{"index": 1, "count": 3, "who": "pid 1 on a"}\n'):
    with _reach(address) as visitor:
      visitor.sendall(line)
      if not line.startswith(b"{"):
        assert visitor.recv(10) == b""  # it is not kept
  assert call(address, (3, 1), (3, 2)) == ["", ""]
  first.join(60)
  assert found == [""]


def _reach(address: str) -> socket.socket:
  host, _, port = address.rpartition(":")
  while True:
    try:
      return socket.create_connection((host, int(port)), timeout=5)
    except ConnectionRefusedError:
      time.sleep(0.01)  # it does not listen yet
