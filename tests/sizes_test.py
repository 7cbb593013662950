"""A module is read in one go, and a function on one screen."""

import ast
import pathlib

import pytest

from tests.helpers import ROOT

LINES, FUNCTION = 500, 80
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "videodiff_jax").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_function_and_no_module_is_longer_than_it_may_be(path: pathlib.Path) -> None:
  """Decorators and docstrings count."""
  text = (ROOT / path).read_text()
  assert len(text.splitlines()) <= LINES
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
      assert node.end_lineno - first + 1 <= FUNCTION, f"{path}:{node.lineno} {node.name}"
