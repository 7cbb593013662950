"""Hosts agree on the step after which they stop, by a store of the test's own."""

import itertools
import random
import threading
import time

import pytest

from tests.training.coordinator import Store
from videodiff_jax.training.stopping import Agreement


def test_all_stop_after_the_last_step_that_any_host_has_started() -> None:
  store = Store()
  ahead, behind = (Agreement(store, "stop/0", index, 2) for index in range(2))
  for step in range(1, 8):
    assert not ahead.stops(step)
  assert not behind.stops(1)
  for host in (ahead, behind):
    host.look(received=False)
  assert not store.values  # no SIGTERM, no word
  store.down = True
  behind.look(received=True)  # by which it promises to wait, and will say so later
  store.down = False
  for host in (behind, ahead, behind, ahead):
    host.look(received=False if host is ahead else True)
  assert store.values == {"stop/0/0": "8", "stop/0/1": "2"}
  assert [behind.stops(step) for step in range(2, 9)] == 6 * [False] + [True]
  assert ahead.stops(8)


def test_no_step_is_started_before_all_hosts_are_heard() -> None:
  store = Store()
  first, second = (Agreement(store, "stop/1", index, 2) for index in range(2))
  assert not first.stops(4)
  first.look(received=True)
  found: list[bool] = []
  waits = threading.Thread(target=lambda: found.append(first.stops(5)), daemon=True)
  waits.start()
  first.look(received=True)
  waits.join(0.1)
  assert not found
  second.look(received=False)  # it has not begun, so it can stop after any step
  first.look(received=True)
  waits.join(60)
  assert found == [True]


@pytest.mark.parametrize("seed", range(10))
def test_hosts_that_wait_for_each_other_s_steps_stop_together(seed) -> None:
  """A step ends where all hosts have started it, and a host starts four before that."""
  rng, store, count = random.Random(seed), Store(), 3
  hosts = [Agreement(store, "stop/2", index, count) for index in range(count)]
  started, changed, last = [0] * count, threading.Condition(), [0] * count
  ended = threading.Event()
  signalled, when = rng.randrange(count), rng.randrange(1, 30)

  def train(index: int) -> None:
    pause = random.Random(seed + 100 * index)
    for step in itertools.count(1):
      with changed:
        started[index] = step
        changed.notify_all()
        changed.wait_for(lambda step=step: min(started) >= step - 4)
      time.sleep(0.002 * pause.random())
      if hosts[index].stops(step):
        last[index] = step
        return

  def look(index: int) -> None:
    while not ended.wait(0.001):
      hosts[index].look(received=index == signalled and started[index] >= when)

  looks = [threading.Thread(target=look, args=(i,), daemon=True) for i in range(count)]
  trains = [threading.Thread(target=train, args=(i,), daemon=True) for i in range(count)]
  for thread in looks + trains:
    thread.start()
  for thread in trains:
    thread.join(60)
  ended.set()
  assert len(set(last)) == 1 and last[0] >= when
