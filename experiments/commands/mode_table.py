"""The modes of the one command: what each does, and an example of it."""

from typing import NamedTuple


class Mode(NamedTuple):
  """One mode.

  Attributes:
    about: what it does: whole sentences.
    example: its arguments beside --mode, as they are typed.
  """

  about: str
  example: str


_DIGITS, _SHIPPED = "--workdir=runs/glober_digits", "--workdir=experiments/pretrained/lgcvd_digits"
MODES: dict[str, Mode] = {
  "train": Mode(
    "Trains all stages of a configuration, each from where it stopped; then runs the modes that "
    "config.after names.",
    "--config=configs/glober_digits.py --workdir=runs/glober_digits",
  ),
  "sample": Mode(
    "Draws new videos: GLOBER clips of a class, a caption or nothing; LGC-VD videos from nothing.",
    f"{_DIGITS} --class_label=3 --num_videos=4",
  ),
  "redraw": Mode(
    "Draws the clips of a saved sample again, from its global features, at other frame times. Of "
    "GLOBER.",
    f"{_DIGITS} --frame_times=0,0.5,1",
  ),
  "reconstruct": Mode(
    "Encodes a video file, or clips of the test split, and draws them again. Of GLOBER.",
    f"{_DIGITS} --input=clip.mp4",
  ),
  "evaluate": Mode(
    "Scores a workdir: every figure stands beside those of real and of trivial videos. With "
    "--protocol by a named protocol; with --table it fills a table of a paper.",
    _DIGITS,
  ),
  "predict": Mode(
    "Predicts what follows a video file, or the first frames of the test split. Of LGC-VD.",
    f"{_SHIPPED} --input=clip.mp4 --num_frames=16",
  ),
  "interpolate": Mode(
    "Draws the frames between given ones. Of LGC-VD.", f"{_SHIPPED} --input=clip.mp4 --gap=4"
  ),
  "ablation": Mode(
    "Trains and compares the variants of config.ablation with several seeds, in folders of "
    "--workdir.",
    "--config=configs/lgcvd_digits.py:occluded --workdir=runs/lgcvd_ablation",
  ),
  "sweep": Mode(
    "Measures quality against seconds, by every sampler, grid and number of steps of config.sweep.",
    _DIGITS,
  ),
  "cache": Mode(
    "Computes once what a workdir's frozen networks make of the training split; stages that begin "
    "later read it. Of GLOBER.",
    f"{_DIGITS} --cache=global_features",
  ),
  "export": Mode(
    "Writes a workdir's averaged weights, scores and samples as the folder --out, with a model "
    "card. Other modes take that folder as their --workdir.",
    f"{_DIGITS} --out=exported/digits",
  ),
  "report": Mode("Writes report.html, the run as one page.", _DIGITS),
  "compare": Mode("Prints score files side by side. They follow as arguments.", "A.json B.json"),
  "plan": Mode(
    "Prints parameters, FLOPs and bytes of every stage, before anything is allocated.",
    "--config=configs/glober_sky.py",
  ),
  "benchmark": Mode(
    "Measures speed: networks against PyTorch's, how fast clips are read (--inputs), or a paper's "
    "table of time and memory (--table).",
    "--inputs --config=configs/glober_sky.py --config.data.dir=STORE",
  ),
  "doctor": Mode("Prints versions, devices and optional parts, and what to do about them.", ""),
}
