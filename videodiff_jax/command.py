"""Wraps every command, so that an expected error ends in one sentence, not a traceback.

Exit status 0: the run finished. 1: an error, whose message is on stderr. 2: wrong arguments
(`config_flag`). 130: interrupted by Ctrl-C. 143: ended by SIGTERM, after a checkpoint.
"""

import _thread
import contextlib
import dis
import errno
import os
import pathlib
import re
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Iterator
from typing import NoReturn

from absl import flags, logging

BAD_ARGUMENTS = 2
INTERRUPTED, TERMINATED = 130, 143  # as in a shell: 128 plus the signal's number
COMPILING = "compiling"  # begins the names of the threads that compile

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_BUGS = (AssertionError, NotImplementedError)
# The operating system's errors, with what to do. Libraries copy its words to other error classes.
_ROOM = "Make room there, and run the same command again: it continues from what is written."
_RIGHTS = "Choose another place, or get permission to use this one."
_FAULTS = {
  errno.ENOSPC: _ROOM,
  errno.EDQUOT: _ROOM,
  errno.EFBIG: _ROOM,
  errno.EROFS: "Choose a place that can be written to.",
  errno.EACCES: _RIGHTS,
  errno.EPERM: _RIGHTS,
  errno.ENAMETOOLONG: "Choose a shorter name.",
  errno.ENOENT: "Check the path.",
  errno.EEXIST: "It exists already: choose another place, or move it away.",
  errno.ENOTDIR: "Check the path: a part of it is a file.",
  errno.EISDIR: "Give a file.",
  errno.ELOOP: "Check the links on the path.",
  errno.EMFILE: "Allow this process more open files (ulimit -n), or let it use fewer threads.",
  errno.EIO: "Check the disk or the mount, and run the same command again.",
  errno.ESTALE: "Check the disk or the mount, and run the same command again.",
}
_GRACE = 5.0  # seconds
_MEMORY = "Out of memory: use smaller batches, fewer videos or smaller networks."
# Words of JAX and its transports when another process of the run is gone.
_LOST = re.compile(
  r"Gloo|NCCL|heartbeat|coordination (service|agent)|UNAVAILABLE|DEADLINE_EXCEEDED"
  r"|(reset|closed) by peer",
  re.IGNORECASE,
)


class Terminated(Exception):
  """SIGTERM ended the command early, after it saved its state."""


@contextlib.contextmanager
def door(resumes: str = "") -> Iterator[None]:
  """Wraps a whole command, and ends the process where it fails.

  Expected errors print one sentence; --verbosity=1 also prints their traceback. Bugs pass through
  with their traceback.

  Args:
    resumes: a sentence that says what the same command does after it was ended early.
  """
  sys.excepthook, sys.unraisablehook = _outside_python, _in_a_callback
  try:
    yield
  except KeyboardInterrupt:
    _end_soon(INTERRUPTED)
    fail(f"Interrupted. {resumes}".strip(), INTERRUPTED)
  except Terminated:
    fail(f"Ended by SIGTERM. {resumes}".strip(), TERMINATED)
  except BrokenPipeError:  # the reader of stdout, such as `head`, has ended
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)
  except Exception as error:
    sentence = user_message(error)
    if sentence is not None and _lost(str(error)):  # JAX's own end would wait for it, or abort
      print(f"Error: {sentence}", file=sys.stderr, flush=True)
      os._exit(1)
    _end_soon(1)
    if sentence is None:
      sys.excepthook = sys.__excepthook__
      raise
    if logging.level_debug():
      traceback.print_exception(error)
    fail(f"Error: {sentence}", 1)


def _outside_python(
  kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
) -> None:
  """Prints the traceback of an error in a callback that C++ calls, but for tensorstore's noise.

  Such callbacks have no caller to raise to. Where a read or a write fails, which `door` reports,
  each of tensorstore's also prints that the event loop it answers to is closed.
  """
  noise = str(error) == "Event loop is closed" or user_message(error) is not None
  if not noise or logging.level_debug():
    sys.__excepthook__(kind, error, trace)


def _in_a_callback(unraisable: "sys.UnraisableHookArgs") -> None:
  """Repeats a Ctrl-C that came in a callback, which cannot raise it; leaves tensorstore's noise."""
  if issubclass(unraisable.exc_type, KeyboardInterrupt):
    _thread.start_new_thread(_interrupt_later, ())  # does not wait for it, as threading does
  elif str(unraisable.exc_value) != "Event loop is closed" or logging.level_debug():
    sys.__unraisablehook__(unraisable)


def _interrupt_later() -> None:
  time.sleep(0.01)  # until the callback has returned
  main = threading.main_thread().ident
  assert main is not None  # it runs
  signal.pthread_kill(main, signal.SIGINT)


def _end_soon(status: int) -> None:
  """Bounds how long one of several processes takes to end after an error.

  At its end, JAX waits for the others. They may wait for this one, and learn that it is gone only
  when it is.
  """
  if _among_several():
    from videodiff_jax.training import watch

    watch.stop()
    timer = threading.Timer(_GRACE, os._exit, (status,))
    timer.daemon = True
    timer.start()


def fail(message: str, status: int) -> NoReturn:
  """Ends the process with a line on stderr.

  A compiler, which nothing can interrupt, is not waited for: it may take many minutes.
  """
  print(message, file=sys.stderr)
  if any(thread.name.startswith(COMPILING) for thread in threading.enumerate()):
    try:
      if _among_several():
        sys.modules["jax"].distributed.shutdown()  # as it does by itself where Python ends
      logging.flush()
      sys.stdout.flush()
      sys.stderr.flush()
    finally:
      os._exit(status)
  sys.exit(status)


# Packages that reach object storage; tensorstore's words for the same, which orbax passes on.
_STORES = {"aiobotocore", "aiohttp", "botocore", "gcsfs", "google"}
_UNREACHED = re.compile(r"UNAVAILABLE|PERMISSION_DENIED|UNAUTHENTICATED|DEADLINE_EXCEEDED|ABORTED")


def user_message(error: BaseException) -> str | None:
  """Returns the sentence that a user sees for an expected error; None for a bug.

  Expected errors are the operating system's, in whatever class a library wraps them, object
  storage's, running out of memory, the loss of another process of the run, and errors raised by
  this project's own files, whose messages are written for users.
  """
  if isinstance(error, OSError) and error.errno is not None:
    files = [os.fsdecode(name) for name in (error.filename, error.filename2) if name is not None]
    return _of_system(error.errno, error.strerror or str(error), " -> ".join(files))
  text = str(error)
  if _lost(text):
    from videodiff_jax.training import watch

    missing = watch.name_the_missing() or "Another of the run's processes"
    return (
      f"{missing[0].upper()}{missing[1:]} is gone, so this one ends, too ({text.splitlines()[0]}). "
      "The first that ended says why. Start all of them again: they go on from the newest "
      "checkpoint."
    )
  place = _place() or ""
  of_store = type(error).__module__.split(".")[0] in _STORES
  of_store = of_store or (isinstance(error, OSError) and text.startswith("http"))  # gcsfs
  if of_store or ("://" in place and _UNREACHED.search(text)):
    return (
      f"Object storage failed ({type(error).__name__}: {text.splitlines()[0] if text else ''}). "
      "Check the credentials and the network, and run the same command again: it continues from "
      "what is written."
    )
  # A full disk is RESOURCE_EXHAUSTED to tensorstore as well.
  fault = next((number for number in _FAULTS if os.strerror(number) in text), None)
  if isinstance(error, MemoryError) or ("RESOURCE_EXHAUSTED" in text and fault is None):
    return f"{_MEMORY} ({text.splitlines()[0]})" if text else _MEMORY
  if isinstance(error, OSError) or _is_ours(error):
    return text
  if fault is not None:
    return _of_system(fault, text.splitlines()[0], "")
  return None


def _lost(text: str) -> bool:
  """Tells whether an error says that another process of the run is gone."""
  return bool(_LOST.search(text)) and _among_several()


def _among_several() -> bool:
  """Tells whether JAX has joined this process with others."""
  return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def _of_system(number: int, words: str, file: str) -> str:
  if not file and (place := _place()):
    file = f"writing below {place}"
  what = f"{words} ({file})" if file else words
  return f"{what}. {_FAULTS.get(number, 'Check it, and run the same command again.')}"


def _place() -> str | None:
  """Returns the folder that the command writes to, since a failed write does not name its file."""
  values = flags.FLAGS
  given = (values[name].value for name in ("out", "workdir") if name in values)
  return next((value for value in given if value), None)


def _is_ours(error: BaseException) -> bool:
  """Tells whether a `raise` in this project's files raised it, not a library or the interpreter."""
  if isinstance(error, _BUGS) or error.__traceback__ is None:
    return False
  last = error.__traceback__
  while last.tb_next is not None:
    last = last.tb_next
  return _in_project(last.tb_frame.f_code) and _raises(last)


def _in_project(code: types.CodeType) -> bool:
  file = pathlib.Path(code.co_filename)
  return file.is_relative_to(_ROOT) and "site-packages" not in file.relative_to(_ROOT).parts


def _raises(last: types.TracebackType) -> bool:
  operation = last.tb_frame.f_code.co_code[last.tb_lasti]
  return dis.opname[operation] in ("RAISE_VARARGS", "RERAISE")
