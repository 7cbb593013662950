"""Rules for the values of configuration keys, and the check of a configuration against a table.

The table is in range_table.py. A rule returns '' for an allowed value, else what the value must be.
"""

import dataclasses
import fnmatch
import re
from collections.abc import Mapping
from typing import Any, Protocol

from experiments.setup.errors import UserError

_LONGEST = 80  # characters of a value that a message shows


class Rule(Protocol):
  """Returns '' for an allowed value, else the end of the error's sentence: 'it must ...'."""

  def __call__(self, value: Any) -> str: ...


@dataclasses.dataclass(frozen=True)
class Number:
  """A finite number in an interval.

  Attributes:
    interval: interval in mathematical notation: '[0, 1)' includes 0 and excludes 1.
    unit: unit of the number, for the message.
    whole: whether only whole numbers are allowed.
    also: allowed numbers outside the interval, each with a special meaning.
  """

  interval: str
  unit: str = ""
  whole: bool = False
  also: tuple[int, ...] = ()

  def __call__(self, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
      return f"it must be a {'whole ' * self.whole}number in {self}"
    return "" if self.has(value) else f"it must lie in {self}"

  def has(self, value: float) -> bool:
    """Whether a number is allowed."""
    low, high = map(float, self.interval[1:-1].split(","))
    above = value >= low if self.interval[0] == "[" else value > low
    below = value <= high if self.interval[-1] == "]" else value < high
    return value in self.also or (above and below)  # NaN is neither

  def __str__(self) -> str:
    also = "".join(f", or be {number}" for number in self.also)
    return self.interval + (f" ({self.unit})" if self.unit else "") + also


def whole(interval: str, unit: str = "", also: tuple[int, ...] = ()) -> Number:
  """A whole number in an interval."""
  return Number(interval, unit, True, also)


@dataclasses.dataclass(frozen=True)
class Choice:
  """One of a few values."""

  values: tuple[Any, ...]

  def __call__(self, value: Any) -> str:
    same = (type(value) is type(one) and value == one for one in self.values)
    return "" if any(same) else f"Choose one of: {self}"

  def __str__(self) -> str:
    return ", ".join(str(one) or "''" for one in self.values)


@dataclasses.dataclass(frozen=True)
class Text:
  """A string that matches `pattern`, which `what` describes in the message."""

  pattern: str = r"[^\0]*"
  what: str = "a text"

  def __call__(self, value: Any) -> str:
    right = isinstance(value, str) and re.fullmatch(self.pattern, value, re.DOTALL)
    return "" if right else f"it must be {self.what}"


@dataclasses.dataclass(frozen=True)
class Several:
  """A tuple of `least` to `most` values of one rule; with `alone`, a bare value is allowed, too.

  Lists are accepted, since configurations read from JSON have lists.
  """

  of: Rule
  least: int = 0
  most: int = 100
  alone: bool = False

  def __call__(self, value: Any) -> str:
    if not isinstance(value, (tuple, list)):
      if self.alone:
        return self.of(value)
      return f"it must be a tuple of {self.least} to {self.most} values, such as (a,) or (a, b)"
    if not self.least <= len(value) <= self.most:
      return f"it must hold {self.least} to {self.most} values, not {len(value)}"
    return ""  # its entries are looked at one by one, see `check`


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Flattens a configuration or dict to 'a.b.c' -> value; an empty group is the value {}."""
  found: dict[str, Any] = {}
  for key, value in tree.items():
    group = hasattr(value, "items")
    inside = flat(value, f"{prefix}{key}.") if group else {}
    found |= inside or {f"{prefix}{key}": {} if group else value}
  return found


def rule_of(table: Mapping[str, Rule], key: str) -> Rule | None:
  """Returns the first rule of the table whose pattern matches the key, or None."""
  if key in table:
    return table[key]
  return next((rule for name, rule in table.items() if fnmatch.fnmatchcase(key, name)), None)


def check(table: Mapping[str, Rule], config: Mapping[str, Any], prefix: str = "") -> None:
  """Raises UserError for the first value that its key's rule refuses.

  A key without a rule passes; `checks.check_given` refuses unknown keys of the user's own.
  `prefix` is this tree's place in the configuration, for the message.
  """
  for key, value in flat(config).items():
    rule = rule_of(table, key)
    if rule is not None and (wrong := _wrong(f"{prefix}{key}", value, rule)):
      raise UserError(wrong)


def _wrong(key: str, value: Any, rule: Rule) -> str:
  """Returns the error message for a refused value, '' for an allowed one."""
  if end := rule(value):
    shown = repr(value) if len(repr(value)) <= _LONGEST else f"{repr(value)[:_LONGEST]}..."
    return f"config.{key} is {shown}{'. ' if end[0].isupper() else '; '}{end}."
  if isinstance(rule, Several) and isinstance(value, (tuple, list)):
    entries = (_wrong(f"{key}[{i}]", one, rule.of) for i, one in enumerate(value))
    return next(filter(None, entries), "")
  return ""
