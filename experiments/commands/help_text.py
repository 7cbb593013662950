"""--help: the modes there are, or what one mode takes, with an example."""

import textwrap
from collections.abc import Iterator, Sequence

from absl import flags

from experiments.commands.mode_table import MODES
from experiments.commands.modes import READ_BY
from videodiff_jax.choices import check_choice

_COMMAND = "python -m experiments.main"
_NO_DEFAULT = ("", "None", "False")
_WIDTH = 100


def asked_for(argv: Sequence[str]) -> bool:
  """Whether the arguments ask for help."""
  return any(word.lstrip("-") in ("help", "h") for word in argv[1:] if word.startswith("-"))


def mode_of(argv: Sequence[str]) -> str | None:
  """Returns the mode that the arguments name, or None.

  Raises:
    ValueError: there is no such mode.
  """
  for i, word in enumerate(argv):
    name, equals, value = word.partition("=")
    if name.lstrip("-") == "mode" and word.startswith("-"):
      mode = value if equals else "".join(argv[i + 1 : i + 2])
      check_choice("mode", mode, MODES)
      return mode
  return None


def page(mode: str | None) -> str:
  """Returns the help of a mode; without one, a line for each mode."""
  if mode is None:
    lines = [f"{_COMMAND} --mode=MODE ...: train by default.", ""]
    for name, (about, _) in MODES.items():
      lines += _entry(f"  {name}", about)
    return "\n".join([*lines, "", f"What a mode takes: {_COMMAND} --mode=MODE --help"])
  about, example = MODES[mode]
  lines = [f"--mode={mode}", "", *textwrap.wrap(about, _WIDTH), "", "Flags:"]
  for name in of_mode(mode):
    flag = flags.FLAGS[name]
    default = "" if str(flag.default) in _NO_DEFAULT else f" Default: {flag.default}."
    lines += _entry(f"  --{name}", f"{flag.help}{default}")
  if "config" in of_mode(mode):
    lines += _entry("  --config.a.b", "Replaces the value of a key of the configuration.")
  return "\n".join([*lines, "", "Example:", f"  {_COMMAND} --mode={mode} {example}".rstrip()])


def of_mode(mode: str) -> list[str]:
  """Lists the flags that a mode reads."""
  return [name for name, readers in READ_BY.items() if mode in readers]


def _entry(name: str, text: str) -> Iterator[str]:
  wrapped = textwrap.wrap(" ".join(text.split()), _WIDTH - 19) or [""]
  yield f"{name:<18} {wrapped[0]}"
  yield from (f"{'':<18} {line}" for line in wrapped[1:])
