"""Makes the generated page and the room graph again.

  python -m docs.make

`python -m docs.make.pictures` draws the pictures of the two systems; it needs the shipped weights.
"""

import pathlib

from docs.make import commands, rooms

DOCS = pathlib.Path(__file__).resolve().parents[1]


def made() -> dict[pathlib.Path, str]:
  """Each generated file with its text."""
  return {
    DOCS / "commands.md": commands.page(),
    DOCS / "pictures" / "rooms.svg": rooms.picture(rooms.imports(DOCS.parent)),
  }


if __name__ == "__main__":
  for path, text in made().items():
    path.write_text(text)
    print(path.relative_to(DOCS.parent))
