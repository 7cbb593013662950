"""A hook of mkdocs for links to files outside docs/, which a checkout has and the site has not.

Links become plain code; pictures and the map of the papers are added to the site.
"""

import pathlib
import posixpath
import re
from typing import Any

from mkdocs.structure.files import File

_OUTSIDE = re.compile(r"(!?)\[([^]]*)\]\(\.\./([^)#]+)(#[^)]*)?\)")
_NEEDS = re.compile(r"^<!-- needs: (.+?) -->$", re.M)
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_PAGES = {"experiments/paper_map.md": "paper_map.md"}  # shown by the site, too


def on_files(files: Any, config: Any) -> Any:
  """Adds the pages, and every picture outside docs/ that a page shows."""
  for path, name in _PAGES.items():
    files.append(File.generated(config, name, content=(_ROOT / path).read_text()))
  for page in files.documentation_pages():
    for picture, _, path, _ in _OUTSIDE.findall(page.content_string):
      if picture and files.get_file_from_path(_inside(path)) is None:
        files.append(File.generated(config, _inside(path), abs_src_path=str(_ROOT / path)))
  return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
  """Points pictures to their copy, takes other links away, and shows what a command needs."""

  def replaced(match: re.Match[str]) -> str:
    picture, words, path, anchor = match.groups()
    if not (_ROOT / path).exists():
      raise FileNotFoundError(f"{page.file.src_path} links to {path}, which is not there.")
    if path in _PAGES:
      return f"[{words}]({_PAGES[path]}{anchor or ''})"
    return f"![{words}]({_inside(path)})" if picture else f"{words} (`{path}`)"

  return _OUTSIDE.sub(replaced, _NEEDS.sub(r"*Needs \1:*\n", markdown))


def _inside(path: str) -> str:
  return posixpath.join("pictures", path.replace("/", "_"))
