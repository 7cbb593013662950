"""Maps each equation, section, table and figure of the two papers to its place in the code.

  python -m experiments.tools.paper_map

finds the tags in docstrings ('Eq. 9', 'Sec. 3.1', 'Tables 2 to 4') and writes them between the two
marks of experiments/paper_map.md. Text outside the marks is written by hand. A tag names its paper
('GLOBER Eq. 9') or stands in a file or folder named after its system. A year before it ('Song et
al. 2021 Eq. 12') marks it as another paper's.
"""

import ast
import collections
import dataclasses
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE = ROOT / "experiments" / "paper_map.md"
BEGIN, END = "<!-- places: made by the command -->\n", "<!-- end of places -->\n"
FOLDERS = ("videodiff_jax", "configs", "data", "experiments")
KINDS = {"Eq": "Equation", "Sec": "Section", "Table": "Table", "Fig": "Figure"}
PAPERS = {"glober": "GLOBER", "lgcvd": "LGC-VD"}  # how files are named -> how docstrings say it

# The meaning of each equation.
EQUATIONS = {
  "GLOBER": {
    "1": "global feature: v = v_mean + v_std n",
    "2": "L_kl, its divergence from N(0, I)",
    "3": "q(z^t given z^{t-1}): the betas",
    "4": "q(z^t given z^0): abar",
    "5": "z^t drawn from z^0 and noise",
    "6": "q(z^{t-1} given z^t, z^0)",
    "7": "L_rec, the error of the predicted noise",
    "8": "the auto-encoder's whole loss",
    "9": "z^0 estimated in one step",
    "10": "L_cra of discriminator and auto-encoder",
  },
  "LGC-VD": {
    "1": "q(x_{1:T}): the forward chain",
    "2": "q(x_t given x_{t-1}): the betas",
    "3": "q(x_t given x_0): abar",
    "4": "p(x_{0:T}): the reverse chain",
    "5": "p(x_{t-1} given x_t): one step of it",
    "6": "q(x_{t-1} given x_t, x_0)",
    "7": "x_0 estimated in one step",
    "8": "the loss without conditions",
    "9": "the loss given local and global context",
    "10": "attention",
    "11": "its query of the fragment, key and value of the global context",
  },
}

_NUMBER = r"\d+(?:\.\d+)*[a-c]?"
_NUMBERS = rf"{_NUMBER}(?:(?:-|, | to | and |, and ){_NUMBER})*"
_TAG = rf"(?:{'|'.join(KINDS)})s?\.? {_NUMBERS}"
_TAGS = re.compile(rf"(?:(?P<paper>GLOBER|LGC-VD)(?:'s)? )?(?P<tags>{_TAG}(?:, {_TAG})*)")


@dataclasses.dataclass(frozen=True)
class Tag:
  """One number of one kind at one place.

  Attributes:
    paper: 'GLOBER' or 'LGC-VD'; None if unknown.
    kind: one of `KINDS`.
    number: number as printed, such as '9', '3.1' or '1c'.
    file: path relative to the repository.
    name: class or function whose docstring has the tag; '' for the module's.
  """

  paper: str | None
  kind: str
  number: str
  file: str
  name: str


def all_tags() -> list[Tag]:
  """Collects the tags of every module that ships, in order of files and lines."""
  files = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
  found = []
  for path in files:
    if path == pathlib.Path(__file__):
      continue  # its docstring shows what tags look like
    found += tags_of(path.read_text(), path.relative_to(ROOT).as_posix())
  return found


def tags_of(source: str, file: str) -> list[Tag]:
  """Finds the tags in one module's docstrings."""
  own = {paper for word, paper in PAPERS.items() if re.search(rf"(^|/){word}(\b|_)", file)}
  default = own.pop() if len(own) == 1 else None
  return [
    Tag(paper or default, kind, number, file, name)
    for name, text in _docstrings(ast.parse(source))
    for paper, kind, number in _parse(" ".join(text.split()))
  ]


def _docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
  def visit(
    node: ast.Module | ast.ClassDef | ast.FunctionDef, name: str
  ) -> Iterator[tuple[str, str]]:
    if text := ast.get_docstring(node):
      yield name, text
    for child in node.body:
      if isinstance(child, (ast.ClassDef, ast.FunctionDef)):
        yield from visit(child, f"{name}.{child.name}".lstrip("."))

  yield from visit(tree, "")


def _parse(text: str) -> Iterator[tuple[str | None, str, str]]:
  for match in _TAGS.finditer(text):
    if re.search(r"\d{4},? $", text[: match.start()]):
      continue  # a year marks another paper's tag
    for kind, numbers in re.findall(rf"({'|'.join(KINDS)})s?\.? ({_NUMBERS})", match["tags"]):
      for number in _expand(numbers):
        yield match["paper"], kind, number


def _expand(numbers: str) -> list[str]:
  """Expands '1c, 3 and 6-8' to 1c, 3, 6, 7, 8."""
  found: list[str] = []
  for part in re.split(r", and |, | and ", numbers):
    first, *last = re.split(r"-| to ", part)
    found += [first] if not last else map(str, range(int(first), int(last[0]) + 1))
  return found


def places(tags: list[Tag]) -> str:
  """Makes the tables between the marks, as Markdown."""
  lines = []
  for paper in PAPERS.values():
    for kind, title in KINDS.items():
      by_number: dict[str, dict[str, list[str]]] = collections.defaultdict(dict)
      for tag in tags:
        if (tag.paper, tag.kind) == (paper, kind):
          names = by_number[tag.number].setdefault(tag.file, [])
          if tag.name and tag.name not in names:
            names.append(tag.name)
      if not by_number:
        continue
      says = EQUATIONS[paper] if kind == "Eq" else {}
      lines += ["", f"### {paper}: {title.lower()}s", ""]
      lines += [f"| {title} | what |" if says else f"| {title} |", "|---|---|" if says else "|---|"]
      lines[-2] += " where |"
      lines[-1] += "---|"
      for number in sorted(by_number, key=_order):
        cells = [number, *([says.get(number, "")] if says else [])]
        cells.append("; ".join(_place(file, names) for file, names in by_number[number].items()))
        lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines).lstrip("\n") + "\n"


def _order(number: str) -> tuple[tuple[int, ...], str]:
  letter = number.lstrip("0123456789.")
  return tuple(map(int, number.removesuffix(letter).split("."))), letter


def _place(file: str, names: list[str]) -> str:
  short = file.removeprefix("videodiff_jax/")
  return " ".join([f"[{short}](../{file})", ", ".join(f"`{name}`" for name in names)]).rstrip()


def written(text: str) -> str:
  """Returns the file's text with updated tables."""
  before, rest = text.split(BEGIN)
  _, after = rest.split(END)
  return f"{before}{BEGIN}\n{places(all_tags())}\n{END}{after}"


if __name__ == "__main__":
  FILE.write_text(written(FILE.read_text()))
