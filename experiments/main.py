"""The one command.

  python -m experiments.main --config=configs/NAME.py[:variant,variant] --workdir=DIR

Any key of the configuration can be set as --config.data.dir=DIR. See --help for the modes.
"""

import logging as python_logging
import os
import pathlib
from collections.abc import Callable, Sequence

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from experiments.commands import modes
from videodiff_jax import command, config_flag, typed

_ROOT = pathlib.Path(__file__).resolve().parents[1]
# Modes of a workdir that are the same for every system, beside a system's own `modes`.
_OF_EVERY_SYSTEM = {
  "ablation": "experiments.claims.ablation:mode",
  "export": "experiments.export.export:export",
  "report": "experiments.report.report:mode",
  "sweep": "experiments.claims.sweep:mode",
}

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:variant,variant]")
_MOST = 100_000  # of what is drawn in one command
_WORKDIR = typed.define_path(
  "workdir", None, "Folder of the run: made, resumed or read. With --table, several: DIR,DIR."
)
_MODE = flags.DEFINE_enum(
  "mode", "train", modes.MODES,
  "train: all stages, then config.after. sample: new videos. evaluate: scores. "
  "GLOBER's redraw: a saved sample's global features at other times; reconstruct: a video file or "
  "the test split. LGC-VD's predict: what follows a video file or the first frames of the test "
  "split; interpolate: frames between given ones; ablation: trains and compares the variants of "
  "config.ablation in folders of --workdir. sweep: quality against seconds, by every sampler, grid "
  "and number of steps of config.sweep. cache: computes once what a workdir's frozen networks make "
  "of the training split, which its later stages then read. export: a workdir's averaged weights, "
  "scores and samples as the folder --out, with a model card; other modes then take that as their "
  "--workdir. report: report.html, the run as one page. "
  "compare A.json B.json ...: score files side by side. plan: parameters, FLOPs and bytes. "
  "benchmark: speed. doctor: versions, devices, optional parts.",
)  # fmt: skip
_STAGE = flags.DEFINE_string("stage", None, "train: only this stage.")
flags.DEFINE_enum(
  "cache",
  None,
  ("latents", "global_features"),
  "cache, GLOBER: latents, what the KL-VAE makes of each frame, for the autoencoder's stage; "
  "global_features, what the video encoder makes of each clip, for the generator's.",
)
typed.define_integer(
  "num_videos", None, "Videos to draw; config.sample.num_videos by default.", 1, _MOST
)
typed.define_integer(
  "num_frames",
  None,
  "GLOBER: frames a clip, evenly spaced; a training clip's by default. LGC-VD: frames to predict, "
  "or of a new video; config.sample.num_frames by default.",
  1,
  _MOST,
)
typed.define_numbers("frame_times", "GLOBER: comma-separated tau in [0, 1], any order.", 0.0, 1.0)
typed.define_float("start", 0.0, "GLOBER: first tau of --num_frames.", 0.0, 1.0)
typed.define_float(
  "end", None, "GLOBER: last tau of --num_frames; that of a training clip by default.", 0.0, 1.0
)
flags.DEFINE_string("sampler", None, "ddim, ddpm, dpmpp_2m or unipc, for every stage.")
typed.define_integer("steps", None, "Sampling steps, for every stage.", 1, _MOST)
typed.define_float(
  "guidance_scale", None, "GLOBER: s, for both stages; 1 is unguided.", 0.0, 1000.0
)
typed.define_integer("class_label", None, "GLOBER: class of all clips.", 0, _MOST)
flags.DEFINE_string(
  "prompts",
  None,
  'GLOBER with text: what to draw, "one;another" or a file with one a line; captions of the test '
  "split by default.",
)
typed.define_integer(
  "trajectories", None, "LGC-VD: N drawn for each video; by default as configured.", 1, _MOST
)
typed.define_integer("past", None, "LGC-VD: given frames before the drawn ones.", 1, _MOST)
typed.define_integer("future", None, "LGC-VD: given frames after a gap.", 1, _MOST)
typed.define_integer("gap", None, "LGC-VD: frames to interpolate.", 1, _MOST)
flags.DEFINE_string(
  "protocol",
  None,
  "evaluate, ablation, sweep: how to score. By default LGC-VD takes config.evaluate.protocol, and "
  "GLOBER scores its ladder.",
)
typed.define_path(
  "out",
  None,
  "export: the folder to make. Other modes with an exported folder as --workdir: where they write, "
  "as nothing is written into it; runs/pretrained/NAME by default.",
)
typed.define_path(
  "notes",
  None,
  "export: a Markdown file with what a person adds to the card, under headings such as "
  "'## What it cannot do' and '## Licence'.",
)
_TABLE = flags.DEFINE_string(
  "table",
  None,
  "A table of a paper, such as glober_1a or lgcvd_3, its figures beside those of the runs in "
  "--workdir=DIR,DIR,... (evaluate); or glober_2, time and memory (benchmark).",
)
_INPUTS = flags.DEFINE_bool(
  "inputs", False, "benchmark: how fast the clips of config.data.dir are read, in what memory."
)
typed.define_seed(0, "Of the draws.")
typed.define_path(
  "input", None, "reconstruct, predict, interpolate: a video file; redraw: a sample's .npz."
)


def main(argv: list[str]) -> None:
  if _MODE.value != "compare":
    config_flag.refuse_words(argv)
  _quiet_libraries()
  goes_on = _MODE.value in ("train", "ablation", "cache", "sweep", "evaluate")
  with command.door("The same command goes on from what is saved." if goes_on else ""):
    run(argv[1:])


def run(files: Sequence[str] = ()) -> None:
  """Does what the flags say; `files` are --mode=compare's."""

  # Imported late: --help and a mistyped flag answer at once.
  from experiments.setup import checks
  from experiments.tools import doctor
  from videodiff_jax.training import hosts

  mode, config = _MODE.value, _CONFIG.value
  if config is not None:
    checks.check_given(config)
  modes.check_flags(mode, config.after if mode == "train" and config is not None else ())
  if mode == "doctor":
    print(doctor.report())
    return
  if mode == "compare":
    from experiments.scoring import score_files

    print(score_files.compare([typed.path(file) for file in files]))
    return
  if mode == "plan" and config is not None and _WORKDIR.value is not None:
    raise checks.UserError("--mode=plan is of --config or of --workdir: give one of them.")
  if mode == "benchmark" and _WORKDIR.value is not None:
    raise checks.UserError("--workdir means nothing to --mode=benchmark: leave it away.")
  if config is None and mode == "plan" and _WORKDIR.value is not None:
    config = saved_config(pathlib.Path(_WORKDIR.value), None)
  if config is None and mode in ("train", "ablation", "plan"):
    there_are = ", ".join(config_flag.config_files(_ROOT))
    raise checks.UserError(f"--mode={mode} needs --config. There are: {there_are}.")
  if mode == "plan":
    from experiments.train import plan

    print(plan.show(config))
    return
  if _TABLE.value is not None:
    enable_compilation_cache()
    print(_table(config))
    return
  if _INPUTS.value:
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
  if mode == "train" or hosts.on_tpu_pod():
    hosts.join()
  elif hosts.index():
    logging.info("--mode=%s runs in one process: this one, %d, is done.", mode, hosts.index())
    return
  if _WORKDIR.value is None:
    raise checks.UserError(f"--mode={mode} needs --workdir.")
  workdir = pathlib.Path(_WORKDIR.value).absolute()
  from experiments.train import train
  from experiments.workdirs import outputs

  if mode != "export":
    outputs.check(workdir, mode)
  makes_workdir = mode in ("train", "ablation")
  saved = config if makes_workdir else saved_config(workdir, config)
  system = saved.system
  modes.check_system(system)
  if config is not None:
    modes.check_overrides(mode, flags.FLAGS["config"].override_values, config, saved)
  split_cpu((config or saved).mesh.cpu_devices)
  after = (mode,)
  if mode == "train":
    checks.check_training(config)
    if _STAGE.value and _STAGE.value not in config.stages:
      raise checks.UserError(f"--stage={_STAGE.value}: choose one of {', '.join(config.stages)}.")
    following = () if _STAGE.value else config.after
    finished = train.train(config, workdir, _STAGE.value, following)
    after = following if finished else ()
  _follow(system, workdir, config, after)
  if mode == "train" and not finished:
    raise command.Terminated


def _follow(
  system: str, workdir: pathlib.Path, config: ConfigDict | None, after: Sequence[str]
) -> None:
  """Runs a mode, or those after training; the command is recorded when it is done."""
  import jax

  from experiments.report import report
  from experiments.workdirs import provenance

  mode = _MODE.value
  if jax.process_count() > 1:
    if jax.process_index() == 0 and mode == "train":
      provenance.record(workdir)
    if jax.process_index() == 0 and after:
      logging.info("Run --mode=%s on one host.", " and --mode=".join(after))
    return
  for step in after:
    mode_function(system, step)(workdir, config, flags.FLAGS)
  if mode not in ("ablation", "export", "report"):
    provenance.record(workdir)
  if "evaluate" in after:
    report.write(workdir)


def _table(config: ConfigDict | None) -> str:
  """What --table asks for; the workdirs' commands and reports are brought up to date."""
  from experiments.report import report
  from experiments.setup import checks
  from experiments.tables import score_table, speed_table
  from experiments.workdirs import provenance
  from videodiff_jax.training import hosts

  if _MODE.value == "benchmark":
    return speed_table.show(_TABLE.value, config)
  if hosts.several():
    raise checks.UserError("Run --table on one host.")
  for name in ("config", "protocol"):
    if flags.FLAGS[name].present:
      raise checks.UserError(
        f"--{name} means nothing to --table, which has its own: leave it away."
      )
  folders = [folder for folder in (_WORKDIR.value or "").split(",") if folder]
  workdirs = [typed.path(folder, "--workdir").absolute() for folder in folders]
  table = score_table.run(_TABLE.value, workdirs)
  for workdir in workdirs:
    provenance.record(workdir)
    report.write(workdir)
  return table


def saved_config(workdir: pathlib.Path, config: ConfigDict | None) -> ConfigDict:
  """What a workdir was trained with; a configuration given with it must be of its system."""
  from experiments.setup import checks
  from videodiff_jax.training import workdir as runs

  saved = runs.read_config(workdir)
  checks.check_saved(saved, workdir)
  if config is not None and config.system != saved.system:
    raise checks.UserError(
      f"{workdir} holds a run of system {saved.system!r}, but --config is of {config.system!r}: "
      "leave --config away, or give one of that system."
    )
  return saved


def mode_function(system: str, mode: str) -> Callable[..., None]:
  """What a mode runs for a system: (workdir, configuration or None, flags)."""
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
    except RuntimeError:  # no $HOME, and a user whom the system does not know
      logging.warning(
        "No home folder is known, so compiled programs are not kept: the next command compiles "
        "them anew. Set HOME or JAX_COMPILATION_CACHE_DIR to a folder."
      )
      return
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(home, "videodiff_jax", "jax")))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def split_cpu(devices: int) -> None:
  """Makes `devices` devices of the CPU, before the first is used; the environment goes before.

  XLA runs a convolution of a few small frames on one thread: one device leaves cores idle.
  """
  import jax

  told = "JAX_NUM_CPU_DEVICES" in os.environ
  if not told and "device_count" not in os.environ.get("XLA_FLAGS", ""):
    jax.config.update("jax_num_cpu_devices", devices)


def parse_flags(argv: Sequence[str]) -> list[str]:
  """The command's arguments without its options, which are checked and set."""
  return config_flag.parse_flags(argv, _ROOT)


def _quiet_libraries() -> None:
  """Ours at INFO, everybody else's from WARNING on (orbax and jax log through absl too)."""
  logging.set_verbosity(max(logging.get_verbosity(), logging.INFO))
  logging.set_stderrthreshold("debug")
  handler = logging.get_absl_handler()
  handler.setFormatter(python_logging.Formatter("%(message)s"))
  handler.addFilter(
    lambda record: (
      record.levelno >= python_logging.WARNING
      or (
        pathlib.Path(record.pathname).is_relative_to(_ROOT)
        and "site-packages" not in record.pathname
      )
    )
  )


if __name__ == "__main__":
  with command.door():
    app.run(main, flags_parser=parse_flags)
