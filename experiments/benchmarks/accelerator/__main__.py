"""One command for a machine with one GPU and no network: are its numbers right, and how fast is it?

  python -m experiments.benchmarks.accelerator --out=DIR --minutes=25

It installs nothing. The CPU's and the accelerator's numbers are compared and what the README claims
is timed, the most valuable first. DIR/accelerator.json is written after each part; the same command
goes on with what is not in it. A part that takes longer than what is left is passed over. --smoke
runs all parts in small, on any machine.
"""

import argparse
import dataclasses
import functools
import json
import logging as python_logging
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging

from experiments.benchmarks.accelerator import stand_ins
from experiments.setup.errors import UserError
from videodiff_jax import command, typed, whole_files

FILE = "accelerator.json"
# GLOBER's row of its Table 2: one V100, 256 x 256, 50 + 50 steps.
_PUBLISHED = {16: "6 s, 7 GB", 32: "11 s, 11 GB", 64: "21 s, 19 GB"}
_UNIPC = {"kind": "unipc", "num_steps": 10}


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of the benchmark.

  Attributes:
    name: its name in the results.
    seconds: an estimate of what it takes on an H100, compiling included.
    run: () -> its figures as JSON values.
  """

  name: str
  seconds: float
  run: Callable[[], dict[str, Any]]


def parts(smoke: bool) -> list[Part]:
  """Lists all parts, the most valuable first."""
  from experiments.benchmarks.accelerator import checks, times

  small, scale = ("smoke", 0.0) if smoke else ("", 1.0)

  def check(name: str, seconds: float, run: Callable, *arguments: Any, **more: Any) -> Part:
    return Part(f"check {name}", scale * seconds, functools.partial(run, *arguments, **more))

  def sampling(frames: int, seconds: float, **settings: Any) -> Part:
    how = "10 + 10 UniPC" if settings else "50 + 50 DDIM"
    count = frames // 4 if smoke else frames
    run = functools.partial(
      times.sampling, "glober_ucf101", small, count, _PUBLISHED[frames], **settings
    )
    return Part(f"sample {frames} frames, {how} steps", scale * seconds, run)

  def training(config: str, stage: str, seconds: float, share: int) -> Part:
    run = functools.partial(times.training, config, small, stage, share)
    return Part(f"train {config} {stage}", scale * seconds, run)

  unipc = {"decoder": _UNIPC, "generator": _UNIPC}
  if smoke:
    unipc = {name: _UNIPC | {"num_steps": 2} for name in unipc}
  return [
    check("attention", 60, checks.attentions),
    sampling(16, 120),
    check("glober's networks", 90, checks.modules, "glober_ucf101", "cond,smoke"),
    training("glober_sky", "autoencoder", 240, 8),
    training("lgcvd_bair", "lgcvd", 120, 1),
    training("glober_sky", "generator", 90, 8),
    check("lgcvd's networks", 45, checks.modules, "lgcvd_bair", "smoke"),
    *(
      check(f"a step of {stage}", 60, checks.step, config, "smoke", stage)
      for config, stage in (
        ("lgcvd_bair", "lgcvd"), ("glober_sky", "autoencoder"), ("glober_sky", "generator"),
        ("glober_sky", "kl_vae"),
      )
    ),
    sampling(16, 90, **unipc),
    check("glober's sampler", 60, checks.sampler, "glober_ucf101", "cond,smoke",
          decoder={"num_steps": 4}, generator={"num_steps": 4}),
    check("lgcvd's sampler", 45, checks.sampler, "lgcvd_bair", "smoke", sampler={"num_steps": 4}),
    sampling(32, 120),
    sampling(64, 150),
    training("glober_ucf101", "autoencoder", 240, 8),
    training("glober_ucf101", "generator", 90, 8),
    training("glober_sky", "kl_vae", 120, 8),
  ]  # fmt: skip


def run(
  out: pathlib.Path,
  minutes: float,
  queue: Sequence[Part],
  about: Mapping[str, Any],
  clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
  """Runs what is left, and returns all results.

  A part that ended the process, or that failed, is tried again after the others.

  Args:
    out: folder of the results.
    minutes: minutes to use; at least one part that fits into them is needed for progress.
    queue: the parts in order.
    about: the machine, which goes into the results.
    clock: seconds.
  """
  end = clock() + 60 * minutes
  out.mkdir(parents=True, exist_ok=True)
  file = out / FILE
  results = json.loads(file.read_text()) if file.exists() else {"parts": {}, "begun": []}
  if results.get("machine", dict(about)) != dict(about):
    raise UserError(f"{file} is of another machine or version: give another --out.")
  results["machine"] = dict(about)
  _write(file, results)
  done, begun, code = results["parts"], results["begun"], _code()
  left = [part for part in queue if "error" in done.get(part.name, {"error": ""})]
  for part in sorted(left, key=lambda part: part.name in begun):
    remaining = end - clock()
    if remaining < part.seconds:
      logging.info(
        "Passed over: %s takes about %.0f s, %.0f s are left.", part.name, part.seconds, remaining
      )
      continue
    if part.name not in begun:
      begun.append(part.name)
    _write(file, results)
    logging.info("%s ...", part.name)
    began = clock()
    try:
      figures = part.run()
    except Exception as error:  # the others still have something to say
      logging.exception("%s failed.", part.name)
      figures = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    done[part.name] = figures | {"part_s": clock() - began, "code": code}
    _write(file, results)
    logging.info("%s: %s", part.name, told(figures))
  return results


def told(figures: Mapping[str, Any]) -> str:
  """Says a part's figures in a line."""
  if "error" in figures:
    return f"failed ({figures['error']})"
  if "passed" in figures:
    worst = max(figures["rows"].values(), key=lambda row: row["difference"] / row["tolerance"])
    verdict = "agrees" if figures["passed"] else "DIFFERS"
    return f"{verdict}; at most {worst['difference']:.1e} where {worst['tolerance']:.0e} may be"
  memory = f", {figures['peak_gb_so_far']:.1f} GB so far" if "peak_gb_so_far" in figures else ""
  if "clip_s" in figures:
    return f"{figures['clip_s']:.2f} s a clip{memory} (paper, V100: {figures['published']})"
  share = f", {figures['mfu']:.1%} of peak" if figures["mfu"] else ""
  return f"{figures['step_s']:.3f} s a step of {figures['batch_size']} clips{share}{memory}"


def machine() -> dict[str, Any]:
  """Returns what a result depends on."""
  import jax

  device = jax.devices()[0]
  return {
    "device": device.device_kind,
    "platform": device.platform,
    "jax": jax.__version__,
    "python": sys.version.split()[0],
  }


def _code() -> str:
  from experiments.workdirs import provenance

  return provenance.code_version()


def _write(file: pathlib.Path, results: Mapping[str, Any]) -> None:
  whole_files.write_text(file, json.dumps(results, indent=1) + "\n")


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """Parses the arguments; wrong ones end the process with status 2."""
  parser = argparse.ArgumentParser("accelerator", description=__doc__)
  parser.add_argument("--out", type=_folder, required=True, help="folder of the results")
  parser.add_argument("--minutes", type=_minutes, default=25.0, help="minutes that it may take")
  parser.add_argument("--smoke", action="store_true", help="all parts in small, on any machine")
  return parser.parse_args(argv)


def _folder(text: str) -> pathlib.Path:
  try:
    return typed.path(text, on_disk=True)
  except ValueError as error:
    raise argparse.ArgumentTypeError(str(error)) from error


def _minutes(text: str) -> float:
  if not 0 < float(text) < float("inf"):
    raise ValueError
  return float(text)


def main(argv: Sequence[str]) -> None:
  """Runs the command.

  Raises:
    UserError: parts differ or failed.
  """
  given = parse(argv)
  logging.set_verbosity(max(logging.get_verbosity(), logging.INFO))
  logging.use_absl_handler()
  python_logging.getLogger("jax").setLevel("WARNING")  # it logs through absl, too
  # Both backends in one process; JAX's own choice has the accelerator first.
  if (chosen := os.environ.get("JAX_PLATFORMS")) and "cpu" not in chosen.split(","):
    os.environ["JAX_PLATFORMS"] = f"{chosen},cpu"
  if missing := stand_ins.install():
    logging.info("Missing here and not needed: %s.", ", ".join(missing))
  queue = parts(given.smoke)
  done = run(given.out, given.minutes, queue, machine())["parts"]
  for part in queue:
    print(f"{part.name}: {told(done[part.name]) if part.name in done else 'not run'}")
  bad = [part.name for part in queue if not done.get(part.name, {}).get("passed", True)]
  bad += [part.name for part in queue if "error" in done.get(part.name, {})]
  if bad:
    raise UserError(f"{len(bad)} of {len(queue)} parts differ or failed: {', '.join(bad)}.")


if __name__ == "__main__":
  with command.door("The same command goes on with what is left."):
    main(sys.argv[1:])
