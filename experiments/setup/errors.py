"""Mistakes of the person who gave the command, told in one sentence."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")


class UserError(ValueError):
  """Something to be put right by the person who gave the command; shown without a traceback."""


@contextlib.contextmanager
def as_user_error() -> Iterator[None]:
  """Around library calls whose ValueError or ImportError is about what the user asked for."""
  try:
    yield
  except (ValueError, ImportError) as error:
    raise UserError(str(error)) from error


def choice(key: str, value: str, choices: tuple[str, ...]) -> None:
  """Raises UserError for a value of config.`key` that is not there."""
  if value not in choices:
    raise UserError(f"config.{key} is {value!r}. Choose one of: {', '.join(choices)}.")


def entry(what: str, name: str, entries: Mapping[str, T]) -> T:
  """The entry of a name; UserError for one that is not there lists those that are."""
  if name not in entries:
    raise UserError(f"No {what} {name!r}. Choose one of: {', '.join(entries)}.")
  return entries[name]
