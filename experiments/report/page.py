"""Pieces of a self-contained HTML page: elements, tables, charts as SVG, media as data: URIs.

The page is a tree of xml.etree elements, which escapes every text and attribute when it is written.
The page runs no scripts and fetches nothing; its policy forbids both.
"""

import base64
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree

Element = ElementTree.Element
Points = Sequence[tuple[float, float]]

GENERATOR = "videodiff_jax report"
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
_TYPES = {".gif": "image/gif", ".mp4": "video/mp4", ".png": "image/png"}
_COLOURS = ("#1f6fb2", "#d1631f", "#2f8f4e", "#8b5fb0")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em;
       color: #1c1c1c; background: #fff; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2em; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .2em .8em; text-align: left; border-bottom: 1px solid #ddd; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #f5f5f5; padding: .8em; overflow-x: auto; font-size: 13px; }
figure { display: inline-block; margin: .4em; vertical-align: top; max-width: 100%; }
figcaption { font-size: 13px; color: #444; max-width: 44em; }
img { max-width: 100%; max-height: 40em; image-rendering: pixelated; } video { width: 160px; }
.bar { background: #1f6fb2; height: .8em; } .bars td { min-width: 6em; }
summary { cursor: pointer; } .note { color: #555; }
"""


def element(tag: str, *children: Element | str | None, **attributes: str | int | float) -> Element:
  """Makes an element; `class_` becomes class, other underscores hyphens; None is left out."""
  names = {name.rstrip("_").replace("_", "-"): str(value) for name, value in attributes.items()}
  made = ElementTree.Element(tag, names)
  for child in children:
    if isinstance(child, str):
      if len(made):
        made[-1].tail = (made[-1].tail or "") + child
      else:
        made.text = (made.text or "") + child
    elif child is not None:
      made.append(child)
  return made


def document(title: str, body: Iterable[Element]) -> str:
  """Returns the whole page as HTML."""
  head = element(
    "head",
    element("meta", charset="utf-8"),
    element("meta", name="generator", content=GENERATOR),
    element("meta", **{"http_equiv": "Content-Security-Policy"}, content=_POLICY),
    element("meta", name="viewport", content="width=device-width, initial-scale=1"),
    element("title", title),
    element("style", _STYLE),
  )
  page = element("html", head, element("body", element("h1", title), *body), lang="en")
  return "<!DOCTYPE html>\n" + _text(page) + "\n"


def _text(page: Element) -> str:
  # Control characters are not valid HTML, nor are surrogates for undecodable bytes of file names.
  text = ElementTree.tostring(page, encoding="unicode", method="html")
  text = "".join(c if c >= " " or c in "\t\n" else "\ufffd" for c in text)
  return text.encode(errors="replace").decode()


def table(heading: Sequence[str], rows: Iterable[Sequence[str | Element]]) -> Element:
  """Makes a table; every column but the first holds numbers."""

  def row(tag: str, cells: Sequence[str | Element]) -> Element:
    kinds: list[dict[str, str]] = [{}] + [{"class_": "number"}] * (len(cells) - 1)
    return element("tr", *(element(tag, cell, **kind) for cell, kind in zip(cells, kinds)))

  head = element("thead", row("th", heading))
  return element("table", head, element("tbody", *(row("td", cells) for cells in rows)))


def bars(values: Mapping[str, float], notes: Mapping[str, str]) -> Element:
  """Draws a bar for each value, with its figure and a note."""
  longest = max(values.values(), default=0.0) or 1.0
  rows = []
  for name, value in values.items():
    width = f"width: {max(value, 0.0) / longest * 100:.1f}%"
    bar = element("div", class_="bar", style=width)
    cells = [element("td", name), element("td", f"{value:.4g}", class_="number")]
    cells += [element("td", notes.get(name, "")), element("td", bar, style="width: 24em")]
    rows.append(element("tr", *cells))
  return element("table", element("tbody", *rows), class_="bars")


def chart(
  title: str, lines: Mapping[str, Points], xlabel: str, best: tuple[float, float] | None = None
) -> Element:
  """Draws lines over a common axis as SVG; logarithmic if a loss falls over more than a decade.

  Points that are not finite are left out. The point `best` is marked.
  """
  lines = {
    name: [point for point in points if all(map(math.isfinite, point))]
    for name, points in lines.items()
  }
  every = [point for points in lines.values() for point in points]
  caption = element("figcaption", element("b", title))
  if not every:
    return element("figure", caption, element("p", "no finite value"))
  (left, right), (low, high) = (_range(axis) for axis in zip(*every))
  log = "loss" in title and low > 0 and high > 10 * low
  scale = math.log if log else float

  def at(x: float, y: float) -> str:
    across = 56 + 258 * (x - left) / ((right - left) or 1.0)
    up = (scale(y) - scale(low)) / ((scale(high) - scale(low)) or 1.0)
    return f"{across:.1f},{136 - 122 * up:.1f}"

  def label(text: str, x: int, y: int, anchor: str) -> Element:
    return element("text", text, x=x, y=y, text_anchor=anchor, font_size=10, fill="#444")

  drawn = [
    element("path", d="M56 14V136H314", fill="none", stroke="#999"),
    label(f"{high:.3g}", 52, 18, "end"),
    label(f"{low:.3g}", 52, 138, "end"),
    label(f"{left:g}", 56, 150, "middle"),
    label(f"{right:g}", 314, 150, "end"),
    label(xlabel, 185, 150, "middle"),
  ]
  for i, (name, points) in enumerate(lines.items()):
    colour = _COLOURS[i % len(_COLOURS)]
    places = " ".join(at(*point) for point in points)
    drawn.append(element("polyline", points=places, fill="none", stroke=colour, stroke_width="1.5"))
    if len(lines) > 1:
      caption.append(element("span", f"  {name}", style=f"color: {colour}"))
  if best is not None and math.isfinite(best[1]):
    x, y = at(*best).split(",")
    drawn.append(element("circle", cx=x, cy=y, r=3, fill="none", stroke="#1c1c1c"))
    caption.append(element("span", f"  best: {best[1]:.4g} at {xlabel} {best[0]:g}"))
  if log:
    caption.append(element("span", "  (logarithmic)"))
  svg = element("svg", *drawn, viewBox="0 0 320 156", width=320, height=156, role="img")
  return element("figure", caption, svg)


def _range(values: Iterable[float]) -> tuple[float, float]:
  values = list(values)
  return min(values), max(values)


class Media:
  """Embeds files until a budget of bytes is spent; `left_out` lists the others and the reasons."""

  def __init__(self, root: pathlib.Path, most: int, most_each: int):
    self._root, self._left, self._most_each = root, most, most_each
    self.left_out: list[str] = []

  def figure(self, file: pathlib.Path, caption: str) -> Element | None:
    """Embeds a picture or an autoplaying video; returns None if it is missing or left out."""
    if not file.is_file():
      return None
    name, size = os.path.relpath(file, self._root), file.stat().st_size
    if size > min(self._left, self._most_each):
      self.left_out.append(f"{name} ({size / 1e6:.1f} MB, too large)")
      return None
    try:
      data = file.read_bytes()
    except OSError as error:
      self.left_out.append(f"{name} ({error.strerror})")
      return None
    self._left -= size
    kind = _TYPES[file.suffix]
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    if kind.startswith("video"):
      flags = dict.fromkeys(("autoplay", "controls", "loop", "muted", "playsinline"), "")
      shown = element("video", src=source, **flags)
    else:
      shown = element("img", src=source, alt=caption)
    return element("figure", shown, element("figcaption", caption))
