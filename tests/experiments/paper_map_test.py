"""paper_map.md: every equation of both papers has a place; the table says what the configs do."""

import ast
import re

import pytest

from experiments.tools import paper_map
from experiments.tools.paper_map import Tag, tags_of
from tests.configs.names import load

EQUATIONS = {"GLOBER": range(1, 11), "LGC-VD": range(1, 12)}  # as the papers number them
SECTIONS = {
  "GLOBER": ("2", "3", "3.1", "3.2", "4.1", "4.2", "4.3", "4.4", "4.5"),
  "LGC-VD": ("3.1", "3.2", "3.3", "4.1", "4.2", "4.3", "4.4", "4.5", "4.6"),
}
TABLES = {
  "GLOBER": ("1a", "1b", "1c", "2", "3", "4", "5", "6", "7", "8"),
  "LGC-VD": ("1", "2", "3", "4", "5"),
}
FIGURES = {"GLOBER": "12345", "LGC-VD": "1234"}
CONFIGS = {
  "GLOBER": ("glober_sky", "glober_taichi", "glober_ucf101"),
  "LGC-VD": ("lgcvd_bair", "lgcvd_cityscapes"),
}
VALUE = re.compile(r"`(?:(\w+): )?config\.([\w.]+) = ([^`]+)`")


@pytest.fixture(scope="module")
def tags() -> list[Tag]:
  return paper_map.all_tags()


def test_every_tag_names_its_paper(tags: list[Tag]) -> None:
  assert [tag for tag in tags if tag.paper is None] == []


@pytest.mark.parametrize("paper", EQUATIONS)
def test_every_equation_stands_at_a_class_or_function(tags: list[Tag], paper: str) -> None:
  """The overview of a module is no place."""
  found = {tag.number for tag in tags if (tag.paper, tag.kind) == (paper, "Eq") and tag.name}
  assert found == set(map(str, EQUATIONS[paper]))
  assert list(paper_map.EQUATIONS[paper]) == list(map(str, EQUATIONS[paper]))


@pytest.mark.parametrize(
  ("kind", "there"), [("Sec", SECTIONS), ("Table", TABLES), ("Fig", FIGURES)]
)
def test_no_tag_names_what_the_paper_lacks(tags: list[Tag], kind: str, there: dict) -> None:
  for tag in tags:
    assert tag.kind != kind or tag.number in there.get(tag.paper, ()), tag


def test_the_file_is_what_the_command_makes() -> None:
  text = paper_map.FILE.read_text()
  assert paper_map.written(text) == text, "run python -m experiments.tools.paper_map"


@pytest.mark.parametrize(
  ("doc", "file", "expected"),
  [
    ("GLOBER Eq. 3, LGC-VD's Eq. 2.", "a.py", [("GLOBER", "3"), ("LGC-VD", "2")]),
    ("GLOBER Sec. 3.1,\n  Eq. 10.", "a.py", [("GLOBER", "3.1"), ("GLOBER", "10")]),
    ("Eq. 7 and 2, for Eq. 4-6", "glober/a.py", [("GLOBER", n) for n in "72456"]),
    ("Tables 2 to 4", "configs/lgcvd_bair.py", [("LGC-VD", n) for n in "234"]),
    ("Eq. 9", "diffusion/a.py", [(None, "9")]),
    ("Song et al. 2021 Eq. 12; Isola 2017, Sec. 3.2", "glober/a.py", []),
  ],
)  # fmt: skip
def test_tags_of_a_docstring(doc: str, file: str, expected: list) -> None:
  found = tags_of(f'def f():\n  """{doc}"""\n', file)
  assert [(tag.paper, tag.number) for tag in found] == expected
  assert all(tag.name == "f" for tag in found)


def table(paper: str) -> list[list[str]]:
  """The rows of a paper's table: topic, paper, released code, here."""
  section = paper_map.FILE.read_text().split(f"\n## {paper}\n")[1].split("\n## ")[0]
  rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
  assert all(len(row) == 4 for row in rows)
  return rows[1:]


def check(cell: str, names: tuple[str, ...], variant: str = "") -> int:
  """Compares the values of a cell; how many there are."""
  values = VALUE.findall(cell)
  assert len(values) == cell.count("config."), f"not read: {cell}"
  for name, key, value in values:
    for config in (name,) if name else names:
      found = load(config + variant)
      for part in key.split("."):
        found = found[part]
      assert found == ast.literal_eval(value), f"{config}{variant}: config.{key} is {found!r}"
  return len(values)


@pytest.mark.parametrize("paper", CONFIGS)
def test_what_stands_in_the_table_is_in_the_configurations(paper: str) -> None:
  assert any([check(row[3], CONFIGS[paper]) for row in table(paper)])


def test_the_release_s_values_are_those_of_the_variant() -> None:
  assert any([check(row[2], CONFIGS["LGC-VD"], ":release") for row in table("LGC-VD")])
