"""Makes a workdir of other people's weights, as if they had been trained here.

  python -m videodiff_jax.pretrained.convert --kind=lgcvd --source=bair.pt \
    --config=configs/lgcvd_bair.py:release --out=DIR

`experiments.main` then takes it as --workdir=DIR. A command, so it stands above every room of the
package and none may import it.
"""

import dataclasses
import hashlib
import json
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

import videodiff_jax
from videodiff_jax.lgcvd import stages as lgcvd_stages
from videodiff_jax.pretrained import lgcvd
from videodiff_jax.training import config_flag
from videodiff_jax.training.checkpoints import Checkpoints, fingerprint
from videodiff_jax.training.flops import count_parameters
from videodiff_jax.training.state import TrainState
from videodiff_jax.training.workdir import write_config


@dataclasses.dataclass(frozen=True)
class Converted:
  """What a source becomes.

  Attributes:
    stage: the one it is a checkpoint of.
    state: of that stage.
    tensors: found in the source and placed.
    parameters: of each network.
  """

  stage: str
  state: TrainState
  tensors: int
  parameters: dict[str, int]


def convert(
  kind: str, source: pathlib.Path, config: ConfigDict, out: pathlib.Path
) -> tuple[Converted, str]:
  """Writes the workdir `out`, whole or not at all.

  Args:
    kind: a key of `KINDS`.
    source: the published file.
    config: of the networks inside, and of how the workdir samples.
    out: a folder that is not there yet, or empty.

  Returns:
    What was converted, and the sha256 of `source`.

  Raises:
    FileExistsError: `out` holds something.
    FileNotFoundError: there is no `source`.
    ImportError: what reads the file is not installed.
    ValueError: the source is not of this kind or not of this configuration.
  """
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise FileExistsError(f"{out} is not empty. Choose another --out; nothing was written.")
  if not source.is_file():
    raise FileNotFoundError(f"No file {source}.")
  with source.open("rb") as file:
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
  converted = KINDS[kind](source, config)
  out.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
    workdir = pathlib.Path(folder) / out.name
    write_config(workdir, config)
    _save(workdir, config, converted, {"file": source.name, "sha256": sha256})
    workdir.rename(out)
  return converted, sha256


def _save(
  workdir: pathlib.Path, config: ConfigDict, converted: Converted, source: dict[str, str]
) -> None:
  """The checkpoint, with all that `training.loop` asks of its own."""
  step, train = int(converted.state.step), config.train[converted.stage]
  checkpoints = Checkpoints(workdir / converted.stage / "checkpoints")
  meta = {
    "config": json.loads(config.to_json()),
    "code": videodiff_jax.__version__,
    "frozen": fingerprint({}),
    "examples": step * train.batch_size,
    "source": source,
  }
  checkpoints.save(step, converted.state, meta)
  checkpoints.wait()
  checkpoints.close()


def _lgcvd(source: pathlib.Path, config: ConfigDict) -> Converted:
  """LGC-VD's bair.pt and cityscapes.pt: both copies of both networks."""
  (name,) = lgcvd_stages.NAMES
  if config.system != "lgcvd":
    raise ValueError(f"The configuration is of system {config.system!r}; kind lgcvd needs its own.")
  checkpoint = lgcvd.read_checkpoint(source)
  wanted = jax.eval_shape(lgcvd_stages.make_stage(config, name).init, jax.random.key(0))
  try:
    params, ema_params = (
      {"params": lgcvd.lgcvd_params(copy, wanted.params["params"])}
      for copy in (checkpoint.raw, checkpoint.ema)
    )
  except ValueError as error:
    raise ValueError(f"{error} What the authors published needs their variant :release.") from error
  state = lgcvd_stages.trained_elsewhere(
    config, *(jax.tree.map(jnp.asarray, tree) for tree in (params, ema_params)), checkpoint.step
  )
  return Converted(
    stage=name,
    state=state,
    tensors=len(jax.tree.leaves((params, ema_params))),
    parameters={network: count_parameters(tree) for network, tree in params["params"].items()},
  )


KINDS: dict[str, Callable[[pathlib.Path, ConfigDict], Converted]] = {"lgcvd": _lgcvd}


def report(converted: Converted, sha256: str, source: pathlib.Path, out: pathlib.Path) -> str:
  """A few lines for people: what was read, and what to do with it."""
  parameters = ", ".join(f"{name} {count:,}" for name, count in converted.parameters.items())
  return "\n".join(
    [
      f"{source}: {source.stat().st_size:,} bytes, sha256 {sha256}",
      f"  step {int(converted.state.step):,}, {converted.tensors} tensors",
      f"  parameters: {parameters}",
      f"{out} is a workdir: python -m experiments.main --mode=predict --workdir={out}",
    ]
  )


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    config_flag.fail(f"Unexpected {' '.join(argv[1:])!r}: options begin with --.")
  logging.set_verbosity(logging.WARNING)  # orbax tells of every file
  options = flags.FLAGS
  source, out = (pathlib.Path(path).absolute() for path in (options.source, options.out))
  try:
    print(report(*convert(options.kind, source, options.config, out), source, out))
  except (ValueError, ImportError, OSError) as error:
    sys.exit(f"Error: {error}")


def define_flags() -> None:
  """The command's flags."""
  flags.DEFINE_enum("kind", None, sorted(KINDS), "Whose weights they are.", required=True)
  flags.DEFINE_string("source", None, "The published file.", required=True)
  flags.DEFINE_string("out", None, "The workdir to write.", required=True)
  config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:variant,variant]")
  flags.mark_flag_as_required("config")


if __name__ == "__main__":
  define_flags()
  app.run(main, flags_parser=lambda argv: config_flag.parse_flags(argv, pathlib.Path()))
