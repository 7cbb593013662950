"""docs/commands.md: every command's flags, read from the parsers that the commands use."""

import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import Iterable

from absl import flags

from experiments.commands import help_text
from experiments.commands.mode_table import MODES

Flag = tuple[str, str, str]  # name, meaning, default
_NO_DEFAULT = ("", "None")

_OTHERS = {
  "data.prepare": "Prepares a data set as a frame store. See [Data sets](datasets.md).",
  "videodiff_jax.pretrained.convert": "Converts published weights. See [Pretrained weights]"
  "(weights.md).",
}
_NEEDS = "<!-- needs: the files and runs that it names -->\n"
_HEAD = f"""# Commands

Made from the commands' own parsers by `python -m docs.make`. `videodiff` is short for
`python -m experiments.main`.

```bash
python -m experiments.main --config=configs/glober_digits.py:smoke --workdir=runs/smoke
```

Every key of a configuration can be set, as `--config.data.dir=DIR` or
`'--config.model.kl_vae.multipliers=(1, 2, 4)'`. Flags that a mode does not read are refused.
[Exit statuses](running.md#exit-statuses) tell a scheduler how a command ended.

Modes: {", ".join(f"[`{mode}`](#{mode})" for mode in MODES)}.
"""


def page() -> str:
  """The whole page."""
  parts = [_HEAD]
  for mode, (about, example) in MODES.items():
    rows = [_flag(flags.FLAGS[name]) for name in help_text.of_mode(mode)]
    command = f"python -m experiments.main --mode={mode} {example}".rstrip()
    parts.append(f"## {mode}\n\n{about}\n\n{_NEEDS}```bash\n{command}\n```\n\n{_table(rows)}")
  for module, about in _OTHERS.items():
    parts.append(f"## python -m {module}\n\n{about}\n\n{_table(of_module(module))}")
  return "\n".join(parts)


def _flag(flag: flags.Flag) -> Flag:
  return flag.name, flag.help or "", str(flag.default)


def of_module(module: str) -> list[Flag]:
  """The flags that a command defines itself, from its --helpxml."""
  run = subprocess.run(
    [sys.executable, "-m", module, "--helpxml"], capture_output=True, text=True, check=False
  )
  found = []
  for flag in xml.etree.ElementTree.fromstring(run.stdout).iter("flag"):
    if flag.findtext("key") == "yes" and flag.findtext("name") not in ("help", "helpfull"):
      values = [flag.findtext(tag) or "" for tag in ("name", "meaning", "default")]
      found.append((values[0], values[1], values[2]))
  return sorted(found)


def _table(rows: Iterable[Flag]) -> str:
  lines = ["| flag | meaning | default |", "|---|---|---|"]
  for name, meaning, default in rows:
    said = " ".join(meaning.split()).replace("|", "\\|").replace("<", "&lt;")
    lines.append(f"| `--{name}` | {said} | {'' if default in _NO_DEFAULT else f'`{default}`'} |")
  if len(lines) == 2:
    return "No flags.\n"
  return "\n".join(lines) + "\n"
