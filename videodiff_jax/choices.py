"""Messages about names: unknown choices with suggestions, and summaries of long lists."""

import difflib
from collections.abc import Iterable


def check_choice(what: str, value: object, choices: Iterable[str]) -> None:
  """Checks that a value is one of the choices.

  Args:
    what: the kind of value, such as 'sampler'.
    value: the value as it was given.
    choices: the valid values.

  Raises:
    ValueError: the value is not among the choices; the message suggests the nearest, and lists all.
  """
  choices = list(choices)
  if value not in choices:
    raise ValueError(f"Unknown {what} {value!r}. {choose_one(value, choices)}")


def choose_one(value: object, choices: Iterable[str]) -> str:
  """Returns the end of a message about a wrong value: 'Did you mean ...?' and all the choices."""
  choices = list(choices)
  meant = did_you_mean(value, choices)
  return f"{meant} Choose one of: {', '.join(choices)}.".lstrip()


def did_you_mean(value: object, choices: Iterable[str]) -> str:
  """Returns a question that suggests the choice nearest to a value; '' where none is near."""
  near = difflib.get_close_matches(str(value), list(choices), 1)
  return f"Did you mean {near[0]!r}?" if near else ""


def summarise(names: Iterable[str], most: int = 8, separator: str = ", ") -> str:
  """Joins the first few of many names and says how many more there are."""
  names = list(names)
  more = [f"and {len(names) - most} more"] if len(names) > most else []
  return separator.join(names[:most] + more)
