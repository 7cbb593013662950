"""The roll call: who has come, before JAX joins the hosts.

JAX's own wait does not say who is missing, and aborts the process. So the first host listens at
the coordinator's address, at which JAX's service comes up afterwards, and each other host tells it
who it is. All are answered once all have come, or once the time is over.
"""

import errno
import json
import os
import select
import socket
import time

from absl import logging

from videodiff_jax.training.launchers import Place

_GRACE = 10.0  # seconds that a host waits longer than the first one, whose answer says more
_PAUSE = 0.5  # seconds between two attempts to reach the first host
_WORD = 5.0  # seconds in which a host that connects must say who it is
_NEWS = 30.0  # seconds between two lines that say who is missing
_MOST_BYTES = 4096  # of a line


def wait(place: Place, timeout: float) -> None:
  """Returns once all processes have come.

  Args:
    timeout: seconds to wait for them.

  Raises:
    ValueError: some did not come, or do not agree on how many they are. It names them, on all.
  """
  if place.count == 1:
    return
  if place.index:
    _answer(place, time.monotonic() + timeout + _GRACE, timeout)
    return
  came: dict[int, tuple[socket.socket, str]] = {}
  try:
    with _listen(int(place.address.rpartition(":")[2]), time.monotonic() + timeout) as door:
      problem = _call(door, place.count, timeout, came)
    # From here on nobody listens at the port, which JAX's service takes.
    for connection, _ in came.values():
      try:
        connection.sendall(_line(problem))
      except OSError:
        pass  # it has gone since; the watch names it
  finally:
    for connection, _ in came.values():
      connection.close()
  if problem:
    raise ValueError(problem)


def _listen(port: int, end: float) -> socket.socket:
  """Opens the port as JAX's service does; a run that ends may still hold it for a moment."""
  dual = socket.has_dualstack_ipv6()
  family = socket.AF_INET6 if dual else socket.AF_INET
  while True:
    try:
      return socket.create_server(("", port), family=family, dualstack_ipv6=dual, backlog=1024)
    except OSError as error:
      if error.errno != errno.EADDRINUSE or time.monotonic() > end:
        raise ValueError(
          f"The first host cannot listen at port {port} ({os.strerror(error.errno or 0)}). Set "
          "another one in JAX_COORDINATOR_ADDRESS, on all hosts."
        ) from error
    time.sleep(_PAUSE)


def _call(
  door: socket.socket, count: int, timeout: float, came: dict[int, tuple[socket.socket, str]]
) -> str:
  """Waits for hosts 1 to `count` - 1, adds them to `came`, and says what is wrong; '' if nothing.

  Args:
    came: host -> its connection, who it is.
  """
  end = time.monotonic() + timeout
  news = time.monotonic() + _NEWS
  while len(came) < count - 1:
    if (now := time.monotonic()) >= end:
      return _absent(set(range(1, count)) - came.keys(), timeout)
    if now >= news:
      logging.info("Still waiting for %s.", _names(set(range(1, count)) - came.keys()))
      news = now + _NEWS
    waiting = [door, *(connection for connection, _ in came.values())]
    ready, _, _ = select.select(waiting, [], [], min(end, news) - now)
    for host in [host for host, (connection, _) in came.items() if connection in ready]:
      came.pop(host)[0].close()  # it says nothing any more, so it has ended
    if door not in ready:
      continue
    connection, _ = door.accept()
    said = _read(connection, _WORD)
    if not isinstance(said, dict) or not {"index", "count", "who"} <= said.keys():
      connection.close()  # not one of ours
      continue
    index, who = said["index"], said["who"]
    if index in came:
      problem = f"Both {came[index][1]} and {who} were started as host {index}."
    elif said["count"] != count:
      problem = f"Host {index} ({who}) was started as one of {said['count']}, host 0 of {count}."
    else:
      came[index] = (connection, who)
      continue
    came[-1] = (connection, who)  # is told, too
    return f"{problem} Start all hosts with the same settings, each with its own index."
  return ""


def _answer(place: Place, end: float, timeout: float) -> None:
  """Tells the first host that this one has come, and waits until all have."""
  host, _, port = place.address.rpartition(":")
  mine = {
    "index": place.index,
    "count": place.count,
    "who": f"pid {os.getpid()} on {socket.gethostname()}",
  }
  reason = ""
  while (left := end - time.monotonic()) > 0:
    try:
      with socket.create_connection((host.strip("[]"), int(port)), timeout=left) as connection:
        connection.sendall(_line(mine))
        said = _read(connection, end - time.monotonic())
    except OSError as error:
      reason = error.strerror or str(error)
      time.sleep(_PAUSE)
      continue
    if said:
      raise ValueError(said)
    if said == "":
      return
    time.sleep(_PAUSE)  # the first host has ended, and may be started again
  raise ValueError(
    f"{_absent({0}, timeout)} This one, {place.index}, looked for it at {place.address}"
    f"{f' ({reason})' if reason else ''}."
  )


def _absent(hosts: set[int], timeout: float) -> str:
  return (
    f"{_names(hosts).capitalize()} did not come within {timeout:.0f} s (--host_timeout). Start all "
    "hosts at once."
  )


def _names(hosts: set[int]) -> str:
  return f"host{'s' if len(hosts) > 1 else ''} {', '.join(map(str, sorted(hosts)))}"


def _line(message: object) -> bytes:
  return json.dumps(message).encode() + b"\n"


def _read(connection: socket.socket, seconds: float) -> object:
  """Returns the message of a line, or None where the other end says nothing or something else."""
  connection.settimeout(max(seconds, 0.1))
  try:
    with connection.makefile("rb") as file:
      return json.loads(file.readline(_MOST_BYTES))
  except (OSError, ValueError):
    return None
