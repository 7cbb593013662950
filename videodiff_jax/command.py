"""The door of every command: faults that are to be expected end in one sentence, not a traceback.

Exit status 1: an error, told on stderr. 2: arguments that are none (`training.config_flag`). 130:
interrupted by Ctrl-C. 143: ended by SIGTERM, after a checkpoint; 0 is a finished run alone.
"""

import contextlib
import dis
import errno
import os
import pathlib
import re
import sys
import traceback
import types
from collections.abc import Iterator
from typing import NoReturn

from absl import flags, logging

BAD_ARGUMENTS = 2
INTERRUPTED, TERMINATED = 130, 143  # as a shell gives them: 128 and the signal's number

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_BUGS = (AssertionError, NotImplementedError)
# Of the operating system, with what to do. Libraries put its words into errors of other classes.
_ROOM = "Make room there, and give the same command again: it goes on from what is written."
_RIGHTS = "Choose another place, or get the right to use this one."
_FAULTS = {
  errno.ENOSPC: _ROOM,
  errno.EDQUOT: _ROOM,
  errno.EFBIG: _ROOM,
  errno.EROFS: "Choose a place that can be written to.",
  errno.EACCES: _RIGHTS,
  errno.EPERM: _RIGHTS,
  errno.ENAMETOOLONG: "Choose a shorter name.",
  errno.ENOENT: "Check the path.",
  errno.EEXIST: "Something is there already: choose another place, or move it away.",
  errno.ENOTDIR: "Check the path: a part of it is a file.",
  errno.EISDIR: "Give a file.",
  errno.ELOOP: "Check the links on the path.",
  errno.EMFILE: "Allow this process more open files (ulimit -n), or let it use fewer threads.",
  errno.EIO: "Check the disk or the mount, and give the same command again.",
  errno.ESTALE: "Check the disk or the mount, and give the same command again.",
}
_MEMORY = "Out of memory: take smaller batches, fewer videos or smaller networks."
# What JAX and its transports say where another of several processes is gone.
_LOST = re.compile(
  r"Gloo|NCCL|heartbeat|coordination (service|agent)|UNAVAILABLE|DEADLINE_EXCEEDED"
  r"|(reset|closed) by peer",
  re.IGNORECASE,
)


class Terminated(Exception):
  """SIGTERM ended the command early, after it had saved what it was at."""


@contextlib.contextmanager
def door(resumes: str = "") -> Iterator[None]:
  """Around a whole command; ends the process where it fails.

  Errors that are no fault of the person, the files or the machine pass: their traceback is needed.
  --verbosity=1 shows that of the others.

  Args:
    resumes: a sentence for who ends it early: what the same command does then.
  """
  try:
    yield
  except KeyboardInterrupt:
    fail(f"Interrupted. {resumes}".strip(), INTERRUPTED)
  except Terminated:
    fail(f"Ended by SIGTERM. {resumes}".strip(), TERMINATED)
  except BrokenPipeError:  # who read what it prints has gone, such as `head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)
  except Exception as error:
    sentence = told(error)
    if sentence is None:
      raise
    if logging.level_debug():
      traceback.print_exception(error)
    fail(f"Error: {sentence}", 1)


def fail(message: str, status: int) -> NoReturn:
  """Ends the process with a line on stderr."""
  print(message, file=sys.stderr)
  sys.exit(status)


def told(error: BaseException) -> str | None:
  """An expected fault in one sentence; None for a bug.

  Expected is what the operating system says, in whatever class a library puts it, too little
  memory, the loss of another process of the run, and what a `raise` in this project's own files
  says: that is written for people.
  """
  if isinstance(error, OSError) and error.errno is not None:
    files = [os.fsdecode(name) for name in (error.filename, error.filename2) if name is not None]
    return _of_system(error.errno, error.strerror, " -> ".join(files))
  text = str(error)
  if _LOST.search(text) and _among_several():
    return (
      f"Another of the run's processes is gone, so this one ends, too ({text.splitlines()[0]}). "
      "The first that ended says why. Start all of them again: they go on from the newest "
      "checkpoint."
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


def _among_several() -> bool:
  """Whether JAX has joined this process with others."""
  return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def _of_system(number: int, words: str, file: str) -> str:
  if not file and (place := _place()):
    file = f"writing below {place}"
  what = f"{words} ({file})" if file else words
  return f"{what}. {_FAULTS.get(number, 'Check it, and give the same command again.')}"


def _place() -> str | None:
  """Where the command writes: what is written to an open file fails without the file's name."""
  values = flags.FLAGS
  given = (values[name].value for name in ("out", "workdir") if name in values)
  return next((value for value in given if value), None)


def _is_ours(error: BaseException) -> bool:
  """Whether a `raise` in this project's files made it, rather than a library or the interpreter."""
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
