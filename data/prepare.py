r"""Prepares a data set as a frame store.

  python -m data.prepare --dataset=moving_digits --out=data/stores/digits
  python -m data.prepare --dataset=moving_mnist --out=DIR
  python -m data.prepare --dataset=video_folder --source=FOLDER --out=DIR --size=128
  python -m data.prepare --dataset=sky_timelapse --source=sky_timelapse --out=DIR
  python -m data.prepare --dataset=taichi_hd --source=taichi-png --out=DIR
  python -m data.prepare --dataset=ucf101 --source=FOLDER --out=DIR
  python -m data.prepare --dataset=bair --source=softmotion30_44k --out=DIR
  python -m data.prepare --dataset=cityscapes --source=leftImg8bit_sequence --out=DIR --codec=png
  python -m data.prepare --dataset=doom --out=DIR --size=128
  python -m data.prepare --verify --out=DIR

Without --source, the command explains where to get a published data set and how its folder looks.
A killed command goes on where it stopped when it is run again; a complete store is left as it is.
--verify reads every record of a prepared store again.
"""

import contextlib
import dataclasses
import hashlib
import inspect
import itertools
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app, flags, logging

from data import parts
from data.builder import PASSED_OVER, Options, SourceError, VideoBuilder
from data.sets.bair import Bair
from data.sets.captioned_digits import CaptionedDigits
from data.sets.cityscapes import Cityscapes
from data.sets.demo_clips import DemoClips
from data.sets.doom import Doom
from data.sets.hdf5_shards import Hdf5Shards
from data.sets.marching_digits import FallingDigits, MarchingDigits
from data.sets.moving_digits import MovingDigits
from data.sets.moving_mnist import MovingMnist, StochasticMnist
from data.sets.occluded_digits import OccludedDigits
from data.sets.sky_timelapse import SkyTimelapse
from data.sets.taichi_hd import TaichiHd
from data.sets.ucf101 import Ucf101
from data.sets.video_folder import VideoFolder
from data.verify import verify
from videodiff_jax import command, config_flag, locks, text_files, typed
from videodiff_jax.choices import check_choice, choose_one
from videodiff_jax.inputs.frame_store import MANIFEST

DATASETS: dict[str, type[VideoBuilder]] = {
  builder.name: builder
  for builder in (
    MovingDigits,
    CaptionedDigits,
    MarchingDigits,
    FallingDigits,
    OccludedDigits,
    MovingMnist,
    StochasticMnist,
    DemoClips,
    VideoFolder,
    SkyTimelapse,
    TaichiHd,
    Ucf101,
    Bair,
    Cityscapes,
    Hdf5Shards,
    Doom,
  )
}
_MOST = 10_000_000  # videos, or frames of a video
_MOST_PIXELS = 8192  # per side
_MOST_WORKERS = 1024


def _whole(low: int, high: int) -> Callable[[str, None, str], Any]:
  return lambda name, default, text: typed.define_integer(name, default, text, low, high)


def _on_disk(name: str, default: None, text: str) -> Any:
  return typed.define_path(name, default, text, on_disk=True)


# Without a flag, the data set's own default applies.
OPTION_FLAGS: dict[str, tuple[Callable[..., Any], str]] = {
  "source": (_on_disk, "Folder of the data set, if it is read from disk."),
  "size": (_whole(1, _MOST_PIXELS), "Side of the square frames in pixels."),
  "num_frames": (_whole(1, _MOST), "Minimum length of videos read; length of videos made."),
  "codec": (flags.DEFINE_string, "Codec of frames; auto: raw up to 64 pixels, else jpeg."),
  "fold": (_whole(1, 3), "ucf101: split to use, 1 to 3."),
  "class_folders": (flags.DEFINE_bool, "video_folder: the first folder of a path is the class."),
  "num_videos": (_whole(1, _MOST), "Videos to make; a tenth (doom: a fifth) is for testing."),
  "seed": (_whole(0, typed.MAX_SEED), "Random seed of videos made."),
}
# Data sets whose videos come inside packages, so that they need no --source.
EMBEDDED = (
  "moving_digits",
  "captioned_digits",
  "falling_digits",
  "marching_digits",
  "occluded_digits",
  "moving_mnist",
  "stochastic_mnist",
  "demo_clips",
)
# Former data set -> why it can no longer be made, and what to use.
REMOVED = {
  "robot_push": "robot_push is no longer made: pybullet, which drew it, has a wheel for Python "
  '3.11 alone. doom stands in its place: pip install -e ".[doom]". A store of robot_push that is '
  "there can still be read (config.data.dir).",
}
_REQUEST = "request.json"


def ensure(
  dataset: str,
  out: str | os.PathLike[str],
  engine: parts.Engine = parts.threads,
  **options: Any,
) -> pathlib.Path:
  """Prepares a store unless it is complete; several processes may ask at once.

  Args:
    dataset: a key of `DATASETS`.
    out: the store's folder. Unfinished parts wait in `out`.parts.
    engine: how the parts are made, which does not change the store.
    **options: fields of the dataset's options.

  Returns:
    `out`, a folder for `FrameStore.open`.

  Raises:
    ValueError: the data set or an option is unknown, the folder holds something else, no video is
      usable, or the disk has too little room.
  """
  if options.get("source"):
    options["source"] = str(typed.path(options["source"], "--source"))
  builder, chosen = _validate(dataset, options)
  request = builder.request(chosen)
  out = typed.path(out, "--out").absolute()
  parts = out.with_name(f"{out.name}.parts")
  if not _is_complete(out, request):
    out.parent.mkdir(parents=True, exist_ok=True)
    with locks.hold(parts / "lock", f"prepares the store {out}", wait=True):
      if not _is_complete(out, request):  # Another process may have been faster.
        _claim(parts, request)
        with _nothing_left(parts):
          builder(data_dir=out, options=chosen).download_and_prepare(engine)
  shutil.rmtree(parts, ignore_errors=True)
  _check_source(out, builder(data_dir=out, options=chosen))
  return out


def planned(dataset: str, **options: Any) -> dict[str, list[dict[str, int]]]:
  """Returns split -> the 'frames' of each video that `ensure` would make; {} if a source is needed.

  Raises:
    ValueError: as `ensure`, for the data set and its options only.
  """
  builder, chosen = _validate(dataset, options)
  if dataset not in EMBEDDED or not hasattr(chosen, "num_videos"):
    return {}
  with tempfile.TemporaryDirectory() as folder:
    made_by = builder(data_dir=f"{folder}/store", options=chosen)
  made: dict[str, list[dict[str, int]]] = {}
  for name in made_by.candidates():
    made.setdefault(name.split("/")[0], []).append({"frames": made_by.least_frames(name)})
  return made


def _validate(dataset: str, options: dict[str, Any]) -> tuple[type[VideoBuilder], Options]:
  if dataset in REMOVED:
    raise ValueError(REMOVED[dataset])
  check_choice("dataset", dataset, sorted(DATASETS))
  builder = DATASETS[dataset]
  valid = [field.name for field in dataclasses.fields(builder.OPTIONS)]
  if unknown := sorted(options.keys() - set(valid)):
    raise ValueError(
      f"{dataset} has no option {', '.join(unknown)}; its options are {', '.join(valid)}."
    )
  try:
    return builder, builder.OPTIONS(**options)
  except SourceError as error:
    raise SourceError(f"{error}\n\n{dataset}: {inspect.getdoc(builder)}") from None


def _is_complete(out: pathlib.Path, request: dict[str, Any]) -> bool:
  """Whether `out` is the requested store; raises ValueError if it holds anything else."""
  if (out / MANIFEST).exists():
    found = text_files.read_json(out / MANIFEST)
    _check_request(f"{out} was prepared", found, request, "choose another --out")
    return True
  if out.exists():
    if not out.is_dir() or any(out.iterdir()):
      raise ValueError(f"{out} holds something other than a frame store; choose another --out.")
    out.rmdir()
  return False


def _check_request(
  subject: str, found: dict[str, Any], request: dict[str, Any], remedy: str
) -> None:
  flat_found, flat_asked = (
    {"dataset": r["dataset"], "version": r["version"], **r["options"]} for r in (found, request)
  )
  differences = [
    f"{key} {flat_found.get(key)!r} (now: {flat_asked.get(key)!r})"
    for key in sorted(flat_found | flat_asked)
    if flat_found.get(key) != flat_asked.get(key)
  ]
  if differences:
    raise ValueError(
      f"{subject} with other options: {', '.join(differences)}. Use the same, or {remedy}."
    )


def _check_source(out: pathlib.Path, builder: VideoBuilder) -> None:
  """Warns or raises ValueError if a complete store no longer matches its source."""
  manifest = text_files.read_json(out / MANIFEST)
  listed = [*itertools.chain(*manifest["videos"].values()), *manifest["skipped"]]
  candidates, names = set(builder.candidates()), {entry["name"] for entry in listed}
  if not candidates & names:
    raise ValueError(f"{out} was prepared from other videos; choose another --out.")
  if new := candidates - names:
    logging.warning(
      "%d videos, such as %s, were added after %s was complete; it is left as it is. Prepare "
      "another --out to include them.", len(new), min(new), out,
    )  # fmt: skip


def _claim(parts: pathlib.Path, request: dict[str, Any]) -> None:
  """Records the request that the parts belong to, or checks that it is the same."""
  parts.mkdir(exist_ok=True)
  file = parts / _REQUEST
  if file.exists():
    found = text_files.read_json(file)
    _check_request(f"{parts} was begun", found, request, "remove that folder")
    return
  unfinished = file.with_suffix(".unfinished")
  if {path.name for path in parts.iterdir()} - {"lock", unfinished.name}:
    raise ValueError(f"{parts} holds something other than parts of a store; move it away.")
  unfinished.write_text(json.dumps(request))
  os.replace(unfinished, file)


@contextlib.contextmanager
def _nothing_left(parts: pathlib.Path) -> Iterator[None]:
  """Removes the folder after an error before the first part, so that options may change."""
  try:
    yield
  except Exception:
    if parts.is_dir() and {path.name for path in parts.iterdir()} <= {"lock", _REQUEST, "store"}:
      shutil.rmtree(parts)
    raise


def summarise(store: pathlib.Path) -> str:
  """Summarises in a few lines what the store holds, and what was skipped and why."""
  manifest = text_files.read_json(store / MANIFEST)
  size = sum(file["bytes"] for file in manifest["files"])
  lines = [f"{store}: {manifest['dataset']}, {size / 1e6:.1f} MB, {manifest['options']}"]
  published = DATASETS[manifest["dataset"]].published(manifest["options"])
  for split in manifest["videos"] | published:
    videos = manifest["videos"].get(split, [])
    frames = sum(video["frames"] for video in videos)
    line = f"  {split}: {len(videos)} videos, {frames} frames"
    if (count := published.get(split, len(videos))) != len(videos):
      line += f"; the published data set has {count} videos"
    lines.append(line)
  found = list(itertools.chain(*manifest["videos"].values()))
  if len(found) == 1:
    lines.append("  one video makes one split, but training needs train and test: add a video")
  if unsure := [video for video in found if "unsure" in video]:
    lines.append(f"  whole or cut short cannot be known: {len(unsure)}, marked in the manifest")
    lines += [f"    {video['name']}: {video['unsure']}" for video in unsure[:10]]
  if skipped := manifest["skipped"]:
    lines.append(f"  skipped: {len(skipped)}, all listed in {store / MANIFEST}")
    lines += [f"    {entry['name']}: {entry['reason']}" for entry in skipped[:10]]
  if (file := store / PASSED_OVER).is_file():
    over = text_files.read_json(file, list)
    lines.append(f"  hidden or of the system: {len(over)}, as {over[0]}; all listed in {file}")
  return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
  config_flag.refuse_words(argv)
  with command.door("The same command goes on where this one stopped."):
    _run()


def _run() -> None:
  values = flags.FLAGS
  given = {name: values[name].value for name in OPTION_FLAGS}
  options = {name: value for name, value in given.items() if value is not None}
  out = pathlib.Path(values.out)
  engine = parts.processes(values.workers or parts.cores())
  if values.beam is not None:
    engine = parts.beam(values.beam.split())
  if not values.dataset and not values.verify:
    raise ValueError(f"--dataset is missing. {choose_one('', sorted(DATASETS))}")
  if values.dataset is None and options:
    raise ValueError(f"--{min(options)} is not supported by --verify alone; remove it.")
  if values.beam is not None:
    parts.import_beam()  # Fails before anything is started.
  if values.dataset:
    print(summarise(ensure(values.dataset, out, engine, **options)))
  if values.verify:
    _verify(out)


def _verify(out: pathlib.Path) -> None:
  problems = verify(out)
  if problems:
    shown = "\n".join(f"  {problem}" for problem in problems[:10])
    raise ValueError(f"{out} is not as it was written ({len(problems)} problems):\n{shown}")
  fingerprint = hashlib.sha256((out / MANIFEST).read_bytes()).hexdigest()[:16]
  print(f"{out}: every file, every entry of the index and every record is as it was written.")
  print(f"  fingerprint, which scores name: {fingerprint}")


def define_flags() -> None:
  """Defines the command's flags; `ensure` checks which options a data set takes."""
  flags.DEFINE_string("dataset", None, f"One of {', '.join(sorted(DATASETS))}.")
  typed.define_path("out", None, "Folder of the store.", required=True, on_disk=True)
  flags.DEFINE_bool("verify", False, "Reads the store again and checks every record.")
  text = "Processes that make the parts; one per core by default."
  typed.define_integer("workers", None, text, 1, _MOST_WORKERS)
  flags.DEFINE_string("beam", None, "Makes the parts by Apache Beam, with these arguments.")
  for name, (define, text) in OPTION_FLAGS.items():
    define(name, None, text)


if __name__ == "__main__":
  define_flags()
  with command.door():
    app.run(main, flags_parser=lambda argv: config_flag.parse_flags(argv, pathlib.Path()))
