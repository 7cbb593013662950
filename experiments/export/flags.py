"""The flags of exported folders."""

from experiments.sampling.flags import READ_BY as OF_SAMPLING
from videodiff_jax import typed

# Flag -> the modes that read it.
READ_BY = {
  "out": OF_SAMPLING["sampler"] | {"evaluate", "sweep", "export", "report"},
  "notes": {"export"},
}

typed.define_path(
  "out",
  None,
  "export: the folder to make. Other modes, with an exported folder as --workdir: the folder for "
  "their results, since exported folders are not written to; runs/pretrained/NAME by default.",
)
typed.define_path(
  "notes",
  None,
  "A Markdown file with your own text for the card, under headings such as "
  "'## What it cannot do' and '## Licence'.",
  on_disk=True,
)
