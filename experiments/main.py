"""The one command.

  python -m experiments.main --config=configs/NAME.py[:variant,variant] --workdir=DIR

Any key of the configuration can be set as --config.data.dir=DIR. See --help for the modes.
"""

import functools
import json
import logging as python_logging
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict

from experiments.commands import help_text, modes
from experiments.commands.mode_table import TOGETHER
from videodiff_jax import command, config_flag, storage, typed
from videodiff_jax.choices import check_choice

_ROOT = pathlib.Path(__file__).resolve().parents[1]
# Modes of a workdir that every system shares; a system's own are in `System.modes`.
_OF_EVERY_SYSTEM = {
  "ablation": "experiments.claims.ablation:mode",
  "export": "experiments.export.export:export",
  "report": "experiments.report.report:mode",
  "sweep": "experiments.claims.sweep:mode",
}


def main(argv: list[str]) -> None:
  if flags.FLAGS.mode != "compare":
    config_flag.refuse_words(argv)
  _quiet_libraries()
  goes_on = flags.FLAGS.mode in ("train", "ablation", "cache", "sweep", "evaluate")
  with command.door("The same command goes on from what is saved." if goes_on else ""):
    run(argv[1:])


def run(files: Sequence[str] = ()) -> None:
  """Runs the mode that the flags ask for; `files` are the arguments of --mode=compare."""

  # Imported late: --help and a mistyped flag answer at once.
  from experiments.setup import checks
  from experiments.tools import doctor_hosts
  from videodiff_jax.training import hosts, launchers

  mode, config = flags.FLAGS.mode, flags.FLAGS.config
  if config is not None:
    checks.check_given(config)
  modes.check_flags(mode, config.after if mode == "train" and config is not None else ())
  if mode == "doctor":
    if config is not None:
      split_cpu(config.mesh.cpu_devices)
    hosts.join(flags.FLAGS.host_timeout)
    place = flags.FLAGS.workdir
    doctor_hosts.show(config, None if place is None else typed.path(place, "--workdir"))
    return
  if mode == "compare":
    from experiments.scoring import score_files

    print(score_files.compare([str(typed.path(file)) for file in files]))
    return
  if mode not in TOGETHER:
    if launchers.index():
      logging.info("--mode=%s runs in one process: this one, %d, is done.", mode, launchers.index())
      return
    if launchers.on_tpu_pod():  # one host cannot start its share of the TPU
      _use_cpu()
  if mode == "plan" and config is not None and flags.FLAGS.workdir is not None:
    raise checks.UserError("--mode=plan takes --config or --workdir, not both: give one of them.")
  if mode == "benchmark" and flags.FLAGS.workdir is not None:
    raise checks.UserError("--workdir is not supported by --mode=benchmark; remove it.")
  if config is None and mode == "plan" and flags.FLAGS.workdir is not None:
    config = saved_config(typed.path(flags.FLAGS.workdir, "--workdir"), None)
  if config is None and mode in ("train", "ablation", "plan"):
    there_are = ", ".join(config_flag.config_files(_ROOT))
    raise checks.UserError(f"--mode={mode} needs --config. There are: {there_are}.")
  if mode == "plan":
    _plan(config)
    return
  if flags.FLAGS.table is not None:
    enable_compilation_cache()
    print(_table(config))
    return
  if flags.FLAGS.inputs:
    from experiments.benchmarks import clip_reading

    if config is None:
      raise checks.UserError("--inputs needs --config.")
    print(clip_reading.show(config))
    return
  if mode == "benchmark":
    from experiments.benchmarks import unets

    print(unets.show(config))
    return
  enable_compilation_cache()
  if mode in TOGETHER:
    hosts.join(flags.FLAGS.host_timeout)
  if flags.FLAGS.workdir is None:
    raise checks.UserError(f"--mode={mode} needs --workdir.")
  workdir = typed.path(flags.FLAGS.workdir, "--workdir").absolute()
  from experiments.train import train
  from experiments.workdirs import outputs
  from videodiff_jax.training import remote_checkpoints

  outputs.check_place(workdir, mode)
  for name in ("workdir", "out", "input"):
    if value := flags.FLAGS[name].value:
      storage.check(typed.path(value, f"--{name}"), f"--{name}")
  remote_checkpoints.check(workdir)
  if mode != "export":
    outputs.check(workdir, mode)
  makes_workdir = mode in ("train", "ablation")
  saved = config if makes_workdir else saved_config(workdir, config)
  system = saved.system
  modes.check_system(system)
  if config is not None:
    given: Any = flags.FLAGS["config"]  # ml_collections' own kind of flag
    modes.check_overrides(mode, given.override_values, config, saved)
  split_cpu((config or saved).mesh.cpu_devices)
  after = (mode,)
  if mode in TOGETHER:
    hosts.agree(_seen(config or saved))
  if mode == "train":
    checks.check_training(config)
    if flags.FLAGS.stage:
      with checks.as_user_error():
        check_choice("--stage", flags.FLAGS.stage, config.stages)
    following = () if flags.FLAGS.stage else config.after
    checks.check_following(following)
    finished = train.train(config, workdir, flags.FLAGS.stage, following)
    after = following if finished else ()
  _follow(system, workdir, config, after)
  if mode == "train" and not finished:
    raise command.Terminated


def _follow(
  system: str, workdir: pathlib.Path, config: ConfigDict | None, after: Sequence[str]
) -> None:
  """Runs a mode, or the modes after training, then records the command in the workdir."""
  from experiments.report import report
  from experiments.workdirs import provenance
  from videodiff_jax.training import hosts

  mode = flags.FLAGS.mode
  for step in after:
    function = functools.partial(mode_function(system, step), workdir, config, flags.FLAGS)
    if step in TOGETHER or step == mode:
      function()
    else:
      hosts.decide(function)

  def tell() -> None:
    if mode not in ("ablation", "export", "report"):
      provenance.record(workdir)
    if "evaluate" in after:
      report.write(workdir)

  hosts.decide(tell)


def _seen(config: ConfigDict) -> dict[str, str]:
  """Returns what has to be the same on all hosts: code, configuration and other flags."""
  import jax

  from experiments.setup import ranges
  from experiments.workdirs import provenance

  given = {name: flags.FLAGS[name] for name in modes.READ_BY if name != "config"}
  return {
    "code": f"{provenance.code_version()} ({provenance.hash_of_sources()})",
    "jax": jax.__version__,
    **{f"config.{key}": json.dumps(value) for key, value in ranges.flat(config).items()},
    **{f"--{name}": str(flag.value) for name, flag in given.items() if flag.present},
  }


def _use_cpu() -> None:
  import jax

  jax.config.update("jax_platforms", "cpu")


def _plan(config: ConfigDict) -> None:
  """Prints what a configuration takes: counted here, or as compiled for other machines."""
  from experiments.compiled import show
  from experiments.setup import checks
  from experiments.train import plan

  asked = flags.FLAGS
  if asked.compile:
    show.mode(config, asked.compile, asked.programs, asked.fit)
    return
  if asked.programs or asked.fit:
    name = "programs" if asked.programs else "fit"
    raise checks.UserError(f"--{name} needs --compile: give it, or remove --{name}.")
  print(plan.show(config))


def _table(config: ConfigDict | None) -> str:
  """Makes the table that --table asks for, and updates the workdirs' commands and reports."""
  from experiments.report import report
  from experiments.setup import checks
  from experiments.tables import score_table, speed_table
  from experiments.workdirs import provenance
  from videodiff_jax.training import launchers

  if flags.FLAGS.mode == "benchmark":
    return speed_table.show(flags.FLAGS.table, config)
  if launchers.several():
    raise checks.UserError("Run --table on one host.")
  for name in ("config", "protocol"):
    if flags.FLAGS[name].present:
      raise checks.UserError(
        f"--{name} is not supported by --table, which sets its own; remove it."
      )
  folders = [folder for folder in (flags.FLAGS.workdir or "").split(",") if folder]
  workdirs = [typed.path(folder, "--workdir").absolute() for folder in folders]
  table = score_table.run(flags.FLAGS.table, workdirs)
  for workdir in workdirs:
    provenance.record(workdir)
    report.write(workdir)
  return table


def saved_config(workdir: pathlib.Path, config: ConfigDict | None) -> ConfigDict:
  """Reads a workdir's configuration; one that is given with it must be of the same system."""
  from experiments.setup import checks
  from videodiff_jax.training import workdir as runs

  saved = runs.read_config(workdir)
  checks.check_saved(saved, workdir)
  if config is not None and config.system != saved.system:
    raise checks.UserError(
      f"{workdir} holds a run of system {saved.system!r}, but --config is for {config.system!r}: "
      "omit --config, or give one of that system."
    )
  return saved


def mode_function(system: str, mode: str) -> Callable[..., None]:
  """Returns the function of a system's mode; it takes (workdir, configuration or None, flags)."""
  from experiments.setup import checks, systems

  paths = {**systems.by_name(system).modes, **_OF_EVERY_SYSTEM}
  if mode not in paths:
    raise checks.UserError(
      f"System {system!r} has no --mode={mode}; with a workdir it has {', '.join(paths)}."
    )
  return systems.find(paths[mode])


def enable_compilation_cache() -> None:
  """Keeps compiled programs in $JAX_COMPILATION_CACHE_DIR or the user's cache folder."""
  import jax

  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    try:
      home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    except RuntimeError:  # no $HOME, and the system does not know the user
      logging.warning(
        "No home folder is known, so compiled programs are not kept: the next command compiles "
        "them again. Set HOME or JAX_COMPILATION_CACHE_DIR to a folder."
      )
      return
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(home, "videodiff_jax", "jax")))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def split_cpu(devices: int) -> None:
  """Splits the CPU into `devices` devices, before the first is used; the environment overrides it.

  XLA runs a convolution of a few small frames on one thread, so that one device leaves cores idle.
  """
  import jax

  chosen = "JAX_NUM_CPU_DEVICES" in os.environ
  if not chosen and "device_count" not in os.environ.get("XLA_FLAGS", ""):
    jax.config.update("jax_num_cpu_devices", devices)


def parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses and checks the flags, and returns the other arguments; --help ends the process."""
  if help_text.asked_for(argv):
    print(help_text.page(help_text.mode_of(argv)))
    sys.exit(0)
  return config_flag.parse_flags(argv, _ROOT)


def _quiet_libraries() -> None:
  """Logs our own lines from INFO on, those of libraries from WARNING on.

  Orbax and jax log through absl, too.
  """
  logging.set_verbosity(max(logging.get_verbosity(), logging.INFO))
  logging.set_stderrthreshold("debug")
  handler = logging.get_absl_handler()
  handler.setFormatter(python_logging.Formatter("%(message)s"))
  handler.addFilter(is_shown)


def is_shown(record: python_logging.LogRecord) -> bool:
  """Whether a log line is shown: our own lines, and libraries' warnings unless we report them.

  A library's thread may log the traceback of an error that the waiting thread raises again. If the
  error is an expected one, `command.door` reports it.
  """
  error = record.exc_info[1] if record.exc_info else None
  if error is not None and not logging.level_debug() and command.user_message(error):
    return False
  ours = (
    pathlib.Path(record.pathname).is_relative_to(_ROOT) and "site-packages" not in record.pathname
  )
  return ours or record.levelno >= python_logging.WARNING


if __name__ == "__main__":
  with command.door():
    app.run(main, flags_parser=parse_flags)
