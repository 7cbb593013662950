"""The room graph as an SVG: which folder imports which, read from every module's syntax tree.

A room stands one floor above the highest room that it imports. An arrow that longer ways already
imply is left out.
"""

import ast
import itertools
import pathlib
from collections.abc import Iterable, Mapping

Graph = dict[str, set[str]]

PACKAGE = "videodiff_jax"
_TOPS = (PACKAGE, "configs", "data", "experiments")
_LEFT_OUT = ("experiments/results", "experiments/pretrained", "experiments/colab")
_COLOURS = {
  "experiments": "#ffe0b2", "data": "#c8e6c9", "configs": "#f8bbd0", PACKAGE: "#bbdefb"
}  # fmt: skip
_WIDTH, _NARROW, _HEIGHT, _GAP, _FLOOR, _MARGIN = 152, 8, 30, 14, 72, 16


def room_of(path: pathlib.PurePath) -> str:
  """'videodiff_jax/models' of a file below it; a file of a top folder belongs to that folder."""
  return "/".join(path.parts[: 2 if len(path.parts) > 2 and path.parts[0] != "data" else 1])


def imports(root: pathlib.Path) -> Graph:
  """Room -> the other rooms that its modules import, anywhere in them."""
  files = [p.relative_to(root) for top in _TOPS for p in sorted((root / top).rglob("*.py"))]
  files = [path for path in files if not str(path).startswith(_LEFT_OUT)]
  modules = {".".join(path.with_suffix("").parts): room_of(path) for path in files}
  modules |= {
    ".".join(path.parent.parts): room_of(path) for path in files if path.stem == "__init__"
  }
  for top in _TOPS:
    modules.pop(top)
  graph: Graph = {}
  for path in files:
    own = graph.setdefault(room_of(path), set())
    own |= {modules[name] for name in _imported(root / path) if name in modules}
  for room, below in graph.items():
    below.discard(room)
    below.discard(PACKAGE)  # errors, paths and files that every room uses
  graph.pop(PACKAGE)
  graph["experiments/main.py"] = graph.pop("experiments")
  return graph


def _imported(path: pathlib.Path) -> Iterable[str]:
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield node.module or ""
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floors(graph: Graph) -> dict[str, int]:
  """Room -> its floor, 0 at the bottom.

  Raises:
    ValueError: rooms that import each other in a circle.
  """
  found: dict[str, int] = {}
  while len(found) < len(graph):
    ready = [room for room in graph if room not in found and graph[room] <= found.keys()]
    if not ready:
      circle = ", ".join(sorted(graph.keys() - found.keys()))
      raise ValueError(f"Rooms import each other in a circle: {circle}.")
    for room in ready:
      found[room] = 1 + max((found[below] for below in graph[room]), default=-1)
  return found


def reduced(graph: Graph) -> Graph:
  """Without the arrows that longer ways imply."""

  def reach(room: str) -> set[str]:
    return graph[room].union(*map(reach, graph[room]))

  return {room: below - set().union(*map(reach, below)) for room, below in graph.items()}


def _rows(graph: Graph, floor: Mapping[str, int]) -> tuple[list[list[str]], list[list[str]]]:
  """What stands on each floor in order, and each arrow as the things that it leads through.

  An arrow over several floors gets a place of its own, named 'room>below>floor', on those between,
  so that it passes beside boxes and not behind them.
  """
  rows: list[list[str]] = [[] for _ in range(max(floor.values()) + 1)]
  for room in sorted(graph):
    rows[floor[room]].append(room)
  ways = []
  for room in sorted(graph):
    for below in sorted(graph[room]):
      between = [f"{room}>{below}>{i}" for i in range(floor[room] - 1, floor[below], -1)]
      for name in between:
        rows[int(name.split(">")[2])].append(name)
      ways.append([room, *between, below])
  joined: dict[str, list[str]] = {name: [] for row in rows for name in row}
  for way in ways:
    for upper, lower in itertools.pairwise(way):
      joined[upper].append(lower)
      joined[lower].append(upper)
  for _ in range(20):
    for row in rows:
      place = {name: x for row in rows for name, x in _places(row).items()}
      row.sort(key=lambda name: sum(place[other] for other in joined[name]) / len(joined[name]))
  return rows, ways


def _places(row: list[str]) -> dict[str, float]:
  """Where the middle of each thing of a row is, counted from the middle of the picture."""
  widths = [_NARROW if ">" in name else _WIDTH for name in row]
  at, found = -(sum(widths) + _GAP * (len(row) - 1)) / 2, {}
  for name, width in zip(row, widths):
    found[name] = at + width / 2
    at += width + _GAP
  return found


def picture(graph: Graph) -> str:
  """The graph as the text of an SVG file."""
  floor = floors(graph)
  rows, ways = _rows(reduced(graph), floor)
  half = max(max(_places(row).values()) for row in rows) + _WIDTH / 2 + _MARGIN
  height = 2 * _MARGIN + (len(rows) - 1) * _FLOOR + _HEIGHT
  place = {
    name: (half + x, height - _MARGIN - _HEIGHT - y * _FLOOR)
    for y, row in enumerate(rows)
    for name, x in _places(row).items()
  }
  out = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * half:.0f} {height}" '
    'font-family="sans-serif" font-size="12">',
    f'<rect width="{2 * half:.0f}" height="{height}" fill="#ffffff"/>',
  ]
  for way in ways:
    x, y = place[way[0]]
    line = f"M{x:.0f} {y + _HEIGHT}"
    for name in way[1:]:
      from_y, (x_to, y) = y + _HEIGHT, place[name]
      middle = (from_y + y) / 2
      line += f" C{x:.0f} {middle:.0f} {x_to:.0f} {middle:.0f} {x_to:.0f} {y}"
      line += f" L{x_to:.0f} {y + _HEIGHT}" if ">" in name else ""
      x = x_to
    out.append(f'<path d="{line}" fill="none" stroke="#78909c"/>')
  for room in sorted(graph):
    x, y = place[room]
    out.append(
      f'<rect x="{x - _WIDTH / 2:.0f}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" '
      f'fill="{_COLOURS[room.split("/")[0]]}" stroke="#546e7a"/>'
      f'<text x="{x:.0f}" y="{y + 19}" text-anchor="middle">{room.removeprefix(PACKAGE + "/")}'
      "</text>"
    )
  return "\n".join([*out, "</svg>", ""])
