"""Every key of every configuration has a range, and nothing outside of it passes."""

import math
from typing import Any

import pytest

from configs import common, lgcvd_common
from experiments.setup import checks, range_table, ranges
from tests.configs.names import FILES, VARIANTS, load

TABLES = {"glober": range_table.GLOBER, "lgcvd": range_table.LGCVD}
BASES = {"glober": common.base, "lgcvd": lgcvd_common.base}
NAMES = [*FILES, *(f"{file}:{variant}" for file in FILES for variant in VARIANTS[file])]


def numeric() -> list[tuple[str, str, ranges.Number, Any]]:
  """(system, key, its range, its value) of every key that holds a number, or several."""
  found = []
  for system, table in TABLES.items():
    for key, value in ranges.flat(BASES[system]()).items():
      rule = ranges.rule_of(table, key)
      if isinstance(one := getattr(rule, "of", rule), ranges.Number):
        found.append((system, key, one, value))
  return found


def test_every_key_of_every_configuration_has_a_range() -> None:
  used = set()
  for name in NAMES:
    config = load(name)
    table = TABLES[config.system]
    # What an ablation changes are keys of these again, see checks_test.py.
    keys = [key for key in ranges.flat(config) if not key.startswith("ablation.variants")]
    assert not [key for key in keys if ranges.rule_of(table, key) is None], name
    checks.check_given(config)
    used |= {id(ranges.rule_of(table, key)) for key in keys}
  for table in TABLES.values():
    assert not [name for name, rule in table.items() if id(rule) not in used]  # no dead line


@pytest.mark.parametrize(
  ("system", "key", "rule", "value"), numeric(), ids=[f"{one[0]}-{one[1]}" for one in numeric()]
)
def test_a_number_outside_its_range_is_refused(
  system: str, key: str, rule: ranges.Number, value: Any
) -> None:
  wrong = [math.nan, math.inf, -math.inf, 10**400, *(v for v in (-1, 0, -0.5) if not rule.has(v))]
  assert not rule.has(-1) or rule.also == (-1,) or key.endswith("logvar_bias")
  several = isinstance(value, (tuple, list))
  for bad in [*wrong, *((None, "1", (), True, {}) if not several else (None, "1", True))]:
    with pytest.raises(checks.UserError) as error:
      ranges.check(TABLES[system], {key: (bad,) if several else bad})
    said = str(error.value)
    assert said.startswith((f"config.{key} is ", f"config.{key}[0] is "))
    assert "; it must" in said and "\n" not in said


@pytest.mark.parametrize("system", BASES)
def test_every_choice_flag_and_text_is_refused_where_it_is_another(system: str) -> None:
  table = TABLES[system]
  for key in ranges.flat(BASES[system]()):
    rule = ranges.rule_of(table, key)
    if not key.startswith("ablation.variants") and not isinstance(rule, ranges.Number):
      for bad in (None, math.nan, "\0"):
        with pytest.raises(checks.UserError, match=rf"config\.{key} is .*; it must|Choose one"):
          ranges.check(table, {key: bad})
