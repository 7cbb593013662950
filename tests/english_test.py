"""English that a test can see: docstrings and comments are sentences with a subject."""

import ast
import io
import pathlib
import tokenize
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ("configs", "data", "experiments", "tests", "videodiff_jax")
# The nodes that have a docstring.
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def bare_openings(source: str) -> list[tuple[int, str]]:
  """Returns (line, text) of docstrings and comments that begin with a bare 'Of'.

  A phrase after code, such as `size = 64  # of a frame`, has the code as its subject.
  """
  return [(line, text) for line, text in texts(source) if text.startswith("Of ")]


def texts(source: str) -> Iterator[tuple[int, str]]:
  """Yields (line, text) of a source's docstrings and comments.

  The text of a comment on a line of its own begins in upper case.
  """
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
      yield node.body[0].lineno, text
  last = -1
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      line, own_line = token.start[0], not token.line[: token.start[1]].strip()
      # A comment that goes on from the line above begins no sentence.
      if not own_line or line != last + 1:
        text = token.string.lstrip("#").strip()
        yield line, text[:1].upper() + text[1:] if own_line else text
      last = line if own_line else -1


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_docstring_or_comment_begins_with_of(folder: str) -> None:
  """'Of clips (n, ...)' has no subject: the reader must look for it in the code below."""
  found = [
    f"{file.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
    for file in sorted((ROOT / folder).rglob("*.py"))
    for line, text in bare_openings(file.read_text())
  ]
  assert not found, "\n".join(found)


def test_what_begins_with_of_is_found() -> None:
  source = '"""A module."""\n# Of clips.\n# of which\nx = 1  # of x\n\ndef f():\n  """Of f."""\n'
  assert sorted(line for line, _ in bare_openings(source)) == [2, 7]
