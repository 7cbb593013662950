"""The flags of every mode: the mode, the configuration and the workdir."""

from absl import flags
from ml_collections import config_flags

from experiments.commands.mode_table import MODES, TOGETHER
from videodiff_jax import typed
from videodiff_jax.choices import check_choice

# Flag -> the modes that read it.
READ_BY = {
  "config": {*MODES} - {"compare", "report"},
  "workdir": {*MODES} - {"compare"},
  "host_timeout": {*TOGETHER, "doctor"},
}


class _Mode(flags.ArgumentParser):
  """Parses the name of a mode; for a mistyped one the error suggests the nearest."""

  def parse(self, argument: str) -> str:
    check_choice("mode", argument, MODES)
    return argument


flags.DEFINE(
  _Mode(),
  "mode",
  "train",
  f"What to do: {', '.join(MODES)}. --mode=NAME --help shows a mode's own flags.",
  serializer=flags.ArgumentSerializer(),
)
config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:variant,variant]")
typed.define_path(
  "workdir",
  None,
  "Folder of the run: made, resumed or read. With --table, several: DIR,DIR.",
)
typed.define_integer(
  "host_timeout",
  300,
  "Several hosts: seconds after which one that did not come, or is gone, ends the others.",
  10,
  86_400,
)
