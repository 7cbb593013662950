"""Which flags a mode reads, and which keys of a --config: what it would ignore is refused."""

from collections.abc import Collection, Sequence

from absl import flags
from ml_collections import ConfigDict

from experiments.setup import systems
from experiments.setup.errors import UserError

MODES = (
  "train", "sample", "redraw", "reconstruct", "evaluate", "predict", "interpolate", "ablation",
  "sweep", "cache", "export", "report", "compare", "plan", "benchmark", "doctor"
)  # fmt: skip
_GIVEN_VIDEO = ("redraw", "reconstruct", "predict", "interpolate")
_DRAWING = ("sample", *_GIVEN_VIDEO)
_BY_TIME = ("sample", "redraw", "reconstruct")
_BY_SEED = ("sample", "reconstruct", "predict", "interpolate")  # redraw takes the sample's own
_WRITING = (*_DRAWING, "evaluate", "sweep", "export", "report")
_SCORED = ("evaluate", "ablation", "sweep")
# Flag -> the modes that read it.
READ_BY: dict[str, tuple[str, ...]] = {
  "stage": ("train",),
  "cache": ("cache",),
  "num_videos": _BY_SEED,
  "num_frames": (*_BY_TIME, "predict"),
  "frame_times": _BY_TIME,
  "start": _BY_TIME,
  "end": _BY_TIME,
  "guidance_scale": _BY_TIME,
  "sampler": _DRAWING,
  "steps": _DRAWING,
  "class_label": ("sample",),
  "prompts": ("sample",),
  "trajectories": ("predict", "interpolate"),
  "past": ("predict", "interpolate"),
  "future": ("interpolate",),
  "gap": ("interpolate",),
  "protocol": _SCORED,
  "out": _WRITING,
  "notes": ("export",),
  "table": ("evaluate", "benchmark"),
  "inputs": ("benchmark",),
  "seed": _BY_SEED,
  "input": _GIVEN_VIDEO,
  "config": tuple(mode for mode in MODES if mode not in ("compare", "doctor", "report")),
  "workdir": tuple(mode for mode in MODES if mode not in ("compare", "doctor")),
}
# Of a --config beside a workdir's own: a mode that goes on with the run compares them all.
_GROUPS = {"evaluate": ("sample", "evaluate"), "sweep": ("sample", "evaluate", "sweep")}
_GROUPS |= dict.fromkeys((*_DRAWING, "export"), ("sample",))


def check_flags(mode: str, after: Sequence[str] = ()) -> None:
  """Raises UserError for a given flag that neither the mode nor one `after` it reads."""
  for name, modes in READ_BY.items():
    if flags.FLAGS[name].present and not {mode, *after} & set(modes):
      others = ", ".join(f"--mode={other}" for other in modes)
      raise UserError(f"--{name} means nothing to --mode={mode}: leave it away. It is of {others}.")


def check_system(system: str) -> None:
  """Raises UserError for a given flag that is another system's."""
  own = systems.by_name(system).flags
  others = [name for other in systems.names() for name in systems.by_name(other).flags]
  if given := [name for name in others if name not in own and flags.FLAGS[name].present]:
    raise UserError(f"--{given[0]} means nothing to system {system!r}: leave it away.")


def check_overrides(
  mode: str, given: Collection[str], config: ConfigDict, saved: ConfigDict
) -> None:
  """Raises UserError for a key of --config that is not read: the run's own value counts.

  Args:
    mode: what is done with a workdir.
    given: 'data.dir' of --config.data.dir=DIR.
    config: with these values.
    saved: the workdir's.
  """
  if mode not in _GROUPS:
    return
  read = (*_GROUPS[mode], "mesh")
  for key in given:
    ours, theirs = (_value(tree, key) for tree in (config, saved))
    if key.split(".")[0] not in read and ours != theirs:
      raise UserError(
        f"--config.{key}={ours} means nothing to --mode={mode}: the run in --workdir was made with "
        f"{theirs}, and that counts. What can be given are keys of "
        f"{', '.join(f'config.{group}' for group in read)}."
      )


def _value(config: ConfigDict, key: str) -> object:
  """config.`key`, without the index of an entry."""
  value: object = config
  for name in key.partition("[")[0].split("."):
    value = value[name] if name in value else None
  return value
