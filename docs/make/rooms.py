"""The room graph as an SVG: which folder imports which, read from every module's syntax tree.

A room stands one floor above the highest room that it imports. An arrow that longer ways already
imply is left out.
"""

import ast
import pathlib
from collections.abc import Iterable, Mapping

Graph = dict[str, set[str]]

PACKAGE = "videodiff_jax"
_TOPS = (PACKAGE, "configs", "data", "experiments")
_LEFT_OUT = ("experiments/results", "experiments/pretrained", "experiments/colab")
_COLOURS = {
  "experiments": "#ffe0b2", "data": "#c8e6c9", "configs": "#f8bbd0", PACKAGE: "#bbdefb"
}  # fmt: skip
_WIDTH, _HEIGHT, _GAP, _FLOOR, _MARGIN = 132, 30, 14, 78, 16


def room_of(path: pathlib.PurePath) -> str:
  """'videodiff_jax/models' of a file below it; a file of a top folder belongs to that folder."""
  return "/".join(path.parts[: 2 if len(path.parts) > 2 else 1])


def imports(root: pathlib.Path) -> Graph:
  """Room -> the other rooms that its modules import, anywhere in them."""
  files = [p.relative_to(root) for top in _TOPS for p in sorted((root / top).rglob("*.py"))]
  files = [path for path in files if not str(path).startswith(_LEFT_OUT)]
  modules = {".".join(path.with_suffix("").parts): room_of(path) for path in files}
  modules |= {".".join(path.parent.parts): room_of(path) for path in files if path.stem[0] == "_"}
  graph: Graph = {}
  for path in files:
    own = graph.setdefault(room_of(path), set())
    own |= {modules[name] for name in _imported(root / path) if name in modules}
  for room, below in graph.items():
    below.discard(room)
    below.discard(PACKAGE)  # errors, paths and files that every room uses
  graph.pop(PACKAGE)
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


def _order(graph: Graph, floor: Mapping[str, int]) -> list[list[str]]:
  """Rooms floor by floor, each near the rooms that it is joined to."""
  rows = [sorted(r for r in graph if floor[r] == i) for i in range(max(floor.values()) + 1)]
  joined = {r: graph[r] | {other for other in graph if r in graph[other]} for r in graph}
  for _ in range(8):
    place = {r: (i + 0.5) / len(row) for row in rows for i, r in enumerate(row)}
    for row in rows:
      row.sort(key=lambda r: sum(place[o] for o in joined[r]) / max(len(joined[r]), 1))
  return rows


def picture(graph: Graph) -> str:
  """The graph as the text of an SVG file."""
  lines, floor = reduced(graph), floors(graph)
  rows = _order(lines, floor)
  width = 2 * _MARGIN + max(len(row) for row in rows) * (_WIDTH + _GAP) - _GAP
  height = 2 * _MARGIN + (len(rows) - 1) * _FLOOR + _HEIGHT
  place = {
    room: (width * (i + 0.5) / len(row), height - _MARGIN - _HEIGHT - y * _FLOOR)
    for y, row in enumerate(rows)
    for i, room in enumerate(row)
  }
  out = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
    'font-family="sans-serif" font-size="12">',
    f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
  ]
  for room in sorted(lines):
    x, y = place[room]
    for below in sorted(lines[room]):
      to_x, to_y = place[below]
      middle = (y + _HEIGHT + to_y) / 2
      out.append(
        f'<path d="M{x:.0f} {y + _HEIGHT} C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} '
        f'{to_x:.0f} {to_y}" fill="none" stroke="#78909c"/>'
      )
  for room, (x, y) in sorted(place.items()):
    colour = _COLOURS[room.split("/")[0]]
    out.append(
      f'<rect x="{x - _WIDTH / 2:.0f}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" '
      f'fill="{colour}" stroke="#546e7a"/>'
      f'<text x="{x:.0f}" y="{y + 19}" text-anchor="middle">{room.removeprefix(PACKAGE + "/")}'
      "</text>"
    )
  return "\n".join([*out, "</svg>", ""])
