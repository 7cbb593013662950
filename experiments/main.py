"""The one command: `python -m experiments.main --config=configs/NAME.py[:variants] --workdir=DIR`.

Any key of the configuration can be set as --config.data.dir=DIR. See --help for the modes.
"""

import logging as python_logging
import os
import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_MODES = (
  "train", "sample", "redraw", "reconstruct", "evaluate", "plan", "benchmark", "doctor"
)  # fmt: skip

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:variant,variant]")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: made, resumed or read.")
_MODE = flags.DEFINE_enum(
  "mode", "train", _MODES,
  "train: all stages, then config.after. sample: new clips. redraw: a saved sample's global "
  "features at other times. reconstruct: a video file or the test split. evaluate: scores. plan: "
  "parameters, FLOPs and bytes. benchmark: speed. doctor: versions, devices, optional parts.",
)  # fmt: skip
_STAGE = flags.DEFINE_string("stage", None, "train: only this stage.")
flags.DEFINE_integer("num_videos", None, "Clips to draw; config.sample.num_videos by default.")
flags.DEFINE_integer("num_frames", None, "Frames a clip, evenly spaced; a training clip's by default.")
flags.DEFINE_list("frame_times", None, "Comma-separated tau in [0, 1], any order.")
flags.DEFINE_float("start", 0.0, "First tau of --num_frames.")
flags.DEFINE_float("end", None, "Last tau of --num_frames; that of a training clip by default.")
flags.DEFINE_string("sampler", None, "ddim, ddpm, dpmpp_2m or unipc, for both stages.")
flags.DEFINE_integer("steps", None, "Sampling steps, for both stages.")
flags.DEFINE_float("guidance_scale", None, "s, for both stages; 1 is unguided.")
flags.DEFINE_integer("class_label", None, "Class of all clips.")
flags.DEFINE_integer("seed", 0, "Of the draws.")
flags.DEFINE_string("input", None, "reconstruct: a video file; redraw: a sample's .npz.")


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"Unexpected {' '.join(argv[1:])!r}: options begin with --.")
  _quiet_libraries()
  # Imported late: --help and a mistyped flag answer at once.
  from experiments import checks

  try:
    run()
  except (checks.UserError, *checks.expected_errors()) as error:
    logging.debug("The error's origin", exc_info=True)
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(1)


def run() -> None:
  """Does what the flags say."""
  import jax

  from experiments import checks, doctor

  mode = _MODE.value
  if mode == "doctor":
    print(doctor.report())
    return
  config = _CONFIG.value
  if config is None and mode in ("train", "plan", "benchmark"):
    raise checks.UserError(f"--mode={mode} needs --config. There are: {', '.join(config_files())}.")
  if config is not None:
    checks.check_config(config)
  if mode == "plan":
    from experiments import plan

    print(plan.show(config))
    return
  enable_compilation_cache()
  if _is_pod():
    jax.distributed.initialize()
  if mode == "benchmark":
    from experiments import benchmark

    print(benchmark.show(config))
    return
  if _WORKDIR.value is None:
    raise checks.UserError(f"--mode={mode} needs --workdir.")
  workdir = pathlib.Path(_WORKDIR.value).absolute()
  from experiments import evaluate, sample, train

  if mode == "train":
    checks.check_devices(config)
    if _STAGE.value and _STAGE.value not in config.stages:
      raise checks.UserError(f"--stage={_STAGE.value}: choose one of {', '.join(config.stages)}.")
    finished = train.train(config, workdir, _STAGE.value)
    after = config.after if finished and not _STAGE.value else ()
  else:
    after = (mode,)
  if jax.process_count() > 1:
    if jax.process_index() == 0 and after:
      logging.info("Run --mode=%s on one host.", " and --mode=".join(after))
    return
  for step in after:
    if step == "evaluate":
      evaluate.evaluate(workdir, config)
    else:
      getattr(sample, step)(workdir, config, flags.FLAGS)


def enable_compilation_cache() -> None:
  """Compiled programs are kept between runs, in the user's cache folder or $JAX_COMPILATION_CACHE_DIR."""
  import jax

  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    jax.config.update("jax_compilation_cache_dir", str(home / "videodiff_jax" / "jax"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def config_files() -> list[str]:
  """The configurations of this checkout."""
  return sorted(
    f"configs/{file.name}"
    for file in (_ROOT / "configs").glob("*.py")
    if file.name not in ("__init__.py", "common.py")
  )


def parse_flags(argv: list[str]) -> list[str]:
  """absl's parser, with every mistake about the configuration told in one sentence."""
  try:
    return flags.FLAGS(argv, known_only=False)
  except FileNotFoundError as error:
    _exit(f"No configuration {error.filename or error}. There are: {', '.join(config_files())}.")
  except (flags.Error, ValueError, TypeError, AttributeError, KeyError) as error:
    _exit(str(error.args[0]) if error.args else str(error))


def _exit(message: str) -> None:
  print(f"Error: {message}", file=sys.stderr)
  sys.exit(2)


def _is_pod() -> bool:
  """Several hosts: a TPU pod, SLURM or Open MPI, or addresses given as jax's own variables."""
  single = {"", "localhost"}
  workers = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
  return (
    len(set(workers) - single) > 1
    or int(os.environ.get("SLURM_NTASKS", "1")) > 1
    or int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
    or "JAX_COORDINATOR_ADDRESS" in os.environ
  )


def _quiet_libraries() -> None:
  """Ours at INFO, everybody else's from WARNING on (orbax and jax log through absl too)."""
  logging.set_verbosity(logging.INFO)
  logging.set_stderrthreshold("info")
  handler = logging.get_absl_handler()
  handler.setFormatter(python_logging.Formatter("%(message)s"))
  handler.addFilter(
    lambda record: record.levelno >= python_logging.WARNING
    or pathlib.Path(record.pathname).is_relative_to(_ROOT)
  )


if __name__ == "__main__":
  app.run(main, flags_parser=parse_flags)
