"""Errors that the user of a command can correct; each message is one sentence."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TypeVar

from videodiff_jax.choices import check_choice, choose_one

T = TypeVar("T")


class UserError(ValueError):
  """An error that the user of the command can correct; it is shown without a traceback."""


@contextlib.contextmanager
def as_user_error() -> Iterator[None]:
  """Turns a library's ValueError or ImportError about the user's request into a UserError."""
  try:
    yield
  except (ValueError, ImportError) as error:
    raise UserError(str(error)) from error


def choice(key: str, value: str, choices: tuple[str, ...]) -> None:
  """Raises UserError if the value of config.`key` is not one of the choices."""
  if value not in choices:
    raise UserError(f"config.{key} is {value!r}. {choose_one(value, choices)}")


def entry(what: str, name: str, entries: Mapping[str, T]) -> T:
  """Returns the entry of a name.

  Raises:
    UserError: there is no such entry; the message lists all names.
  """
  with as_user_error():
    check_choice(what, name, entries)
  return entries[name]
