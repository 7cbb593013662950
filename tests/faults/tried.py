"""One malformed input each, tried in this process: what became of it."""

import contextlib
import dataclasses
import json
import pathlib
import random
import shutil
import tempfile

import numpy as np

from tests.faults import doors, mutate
from tests.faults.commands import ROOT, Outcome

FRAMES = 6  # of a whole video
VIDEOS = ("gif", "mp4", "avi", "mkv", "webm", "mov", "wmv")
SHORT = "most frames are missing, and nothing says so"


def configuration(case: str, store: pathlib.Path) -> Outcome:
  """'NAME KEY=VALUE' in a new workdir, of which a refused command leaves nothing."""
  name, _, setting = case.partition(" ")
  key, _, value = setting.partition("=")
  with tempfile.TemporaryDirectory() as folder:
    workdir = pathlib.Path(folder) / "run"
    argv = [f"--config=configs/{name}.py:smoke", f"--workdir={workdir}"]
    # The smoke configurations' frames are larger than the store's: sizes that fit no store, too.
    fitting = {"data.dir": store, "data.image_size": 16, "data.name": "moving_digits"}
    fitting |= {"data.channels": 1} if name not in ("glober_digits", "lgcvd_digits") else {}
    argv += [f"--config.{k}={v}" for k, v in fitting.items() if k != key]
    outcome = doors.train([*argv, f"--config.{key}={value}"])
    if outcome.verdict == "refused" and workdir.exists():
      return dataclasses.replace(outcome, said=f"{outcome.said}\n(The workdir is there.)")
    return outcome


def flags(case: str, workdirs: dict[str, pathlib.Path]) -> Outcome:
  """'SYSTEM MODE --FLAG=VALUE', flags parted by zero bytes, with a workdir that is trained."""
  system, mode, given = [*case.split(" ", 2), ""][:3]
  with tempfile.TemporaryDirectory() as folder:
    for name in ("configs", "README.md"):  # what it writes goes to the temporary folder
      (pathlib.Path(folder) / name).symlink_to(ROOT / name)
    argv = [f"--mode={mode}", *(flag for flag in given.split("\0") if flag)]
    names = {flag.lstrip("-").partition("=")[0] for flag in argv}
    if "workdir" not in names:
      argv.append(f"--workdir={workdirs[system]}")
    if mode == "export" and "out" not in names:
      argv.append(f"--out={folder}/exported")
    with contextlib.chdir(folder):
      return doors.draw(argv)


def library(case: str, workdirs: dict[str, pathlib.Path]) -> Outcome:
  """'SYSTEM KEY JSON': `Pipeline.from_workdir` of a run in whose config.json a value stands."""
  system, key, value = case.split(" ", 2)
  with tempfile.TemporaryDirectory() as folder:
    for entry in workdirs[system].iterdir():
      (pathlib.Path(folder) / entry.name).symlink_to(entry)
    config = pathlib.Path(folder) / "config.json"
    saved = json.loads(config.read_text())
    *groups, name = key.split(".")
    tree = saved
    for group in groups:
      tree = tree[group]
    tree[name] = json.loads(value)
    config.unlink()
    config.write_text(json.dumps(saved))
    return doors.load(system, pathlib.Path(folder))


def media(case: int, whole: dict[str, bytes], codec: str = "raw") -> dict[str, Outcome]:
  """A folder of a mutant of each file, and of two whole videos, through `data.prepare`.

  Returns:
    Mutant -> what became of it: refused where it is listed as skipped; said to be SHORT where the
    end of a video's bytes is missing, most of its frames are, and the manifest says nothing.
  """
  rng = random.Random(case)
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    source, out = folder / "source", folder / "store"
    mutants, written = {}, {}
    for file, content in whole.items():
      stem, suffix = file.split(".", 1)
      if suffix in VIDEOS:
        place, mutant = source / f"{stem}.{suffix}", f"{stem}.{suffix}"
      else:  # a frame of a folder of frames
        place, mutant = source / stem / f"f_1.{suffix}", stem
        place.parent.mkdir(parents=True)
        (place.parent / f"f_0.{suffix}").write_bytes(content)
      place.parent.mkdir(parents=True, exist_ok=True)
      written[file] = mutate.of_bytes(rng, content)
      place.write_bytes(written[file])
      mutants[mutant] = file
    for number in (1, 2):
      (source / f"whole {number}").mkdir(parents=True)
      for frame in (0, 1):
        (source / f"whole {number}" / f"{frame}.png").write_bytes(whole["png.png"])
    outcome = doors.prepare(
      "video_folder", out, source=str(source), size=8, num_frames=1, codec=codec
    )
    if outcome.verdict != "accepted":
      return dict.fromkeys(mutants.values(), outcome)
    manifest = json.loads((out / "manifest.json").read_text())
    kept = {video["name"]: video for videos in manifest["videos"].values() for video in videos}
    skipped = {entry["name"]: entry["reason"] for entry in manifest["skipped"]}
  results = {}
  for mutant, file in mutants.items():
    if mutant in kept:
      cut = whole[file].startswith(written[file]) and file.split(".", 1)[1] in VIDEOS
      short = cut and kept[mutant]["frames"] < FRAMES - 2 and "unsure" not in kept[mutant]
      results[file] = Outcome(0, SHORT if short else "")
    elif mutant in skipped:
      results[file] = Outcome(1, f"Error: {skipped[mutant]}")
    else:
      results[file] = Outcome(1, f"{mutant} is neither kept nor listed")
  if not {"whole 1", "whole 2"} <= kept.keys():
    return dict.fromkeys(results, Outcome(1, "whole videos beside it are lost"))
  return results


def text(case: str, files: dict[str, pathlib.Path]) -> Outcome:
  """'KIND NUMBER': a file of a kind, changed, and the command that reads it.

  `files` are whole: what is changed is a copy.
  """
  kind = case.split()[0]
  rng, base = random.Random(case), files[kind]
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    if kind in ("scores", "curves"):
      other = folder / base.name
      other.write_bytes(mutate.of_text(rng, base.read_bytes()))
      if kind == "scores":
        return doors.draw(["--mode=compare", str(base), str(other)])
      return doors.train(
        ["--config=configs/glober_digits.py:smoke", f"--workdir={folder}/run",
         f"--config.data.dir={files['store']}", "--config.data.image_size=16",
         f"--config.expected={other}"]
      )  # fmt: skip
    if kind == "captions":
      source = folder / "source"
      shutil.copytree(base, source)
      file = source / "captions.jsonl"
      file.write_bytes(mutate.of_text(rng, file.read_bytes()))
      return doors.prepare(
        "video_folder", folder / "store", source=str(source), size=8, num_frames=1
      )
    if kind == "npz":
      other = folder / "samples.npz"
      other.write_bytes(mutate.of_bytes(rng, base.read_bytes()))
      return doors.draw(["--mode=redraw", f"--workdir={files['workdir']}", f"--input={other}"])
    if kind == "store":
      other = folder / "store"
      shutil.copytree(base, other)
      file = other / rng.choice(sorted(p.name for p in other.iterdir() if p.suffix == ".json"))
      file.write_bytes(mutate.of_text(rng, file.read_bytes()))
      return doors.verify(other)
    # A workdir's or an exported folder's own file.
    other = folder / "run"
    shutil.copytree(base, other)
    relative = _FILES[kind]
    file = other / relative
    mutant = mutate.of_bytes if file.suffix == ".safetensors" else mutate.of_text
    file.write_bytes(mutant(rng, file.read_bytes()))
    mode = "report" if kind in ("metrics", "commands") else "sample"
    out = [f"--out={folder}/out"] if kind.startswith("exported") else []
    return doors.draw([f"--mode={mode}", f"--workdir={other}", *out])


_FILES = {
  "config": "config.json",
  "metrics": "kl_vae/metrics.jsonl",
  "commands": "commands.jsonl",
  "exported_weights": "autoencoder/weights.safetensors",
  "exported_manifest": "export.json",
}
TEXTS = (*_FILES, "scores", "curves", "captions", "npz", "store")


def whole_media(folder: pathlib.Path) -> dict[str, bytes]:
  """A small file of every format that is read, by a name that says which."""
  from PIL import Image

  from tests.inputs.make import noise_video, write_video

  frames = noise_video(FRAMES, 32)
  found = {}
  modes = {"png": "RGB", "pngp": "P", "pnga": "RGBA", "png1": "1", "jpg": "RGB", "jpgcmyk": "CMYK",
           "bmp": "RGB", "webp": "RGB", "tif": "RGB", "ppm": "RGB"}  # fmt: skip
  for name, mode in modes.items():
    suffix = name[:3] if name[:3] in ("png", "jpg", "bmp", "tif", "ppm") else name
    file = folder / f"{name}.{suffix}"
    Image.fromarray(frames[0]).convert(mode).save(file)
    found[file.name] = file.read_bytes()
  first, *others = [Image.fromarray(frame) for frame in frames]
  first.save(folder / "gif.gif", save_all=True, append_images=others, duration=40)
  codecs = {"mp4": "libx264", "avi": "mpeg4", "mkv": "libx264", "webm": "libvpx", "mov": "mpeg4",
            "wmv": "wmv2"}  # fmt: skip
  for name, codec in codecs.items():
    write_video(folder / f"{name}.{name}", frames, codec)
  names = [f"{name}.{name}" for name in ("gif", *codecs)]
  return found | {name: (folder / name).read_bytes() for name in names}


def captioned(folder: pathlib.Path) -> pathlib.Path:
  """A source of three videos of two frames, with captions."""
  from PIL import Image

  for video in "abc":
    (folder / video).mkdir(parents=True)
    for i in range(2):
      Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(folder / video / f"{i}.png")
  lines = [json.dumps({"video": video, "caption": f"the clip {video}"}) for video in "abc"]
  (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
  return folder
