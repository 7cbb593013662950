"""The modes of the command: what each does, with an example."""

from typing import NamedTuple


class Mode(NamedTuple):
  """One mode.

  Attributes:
    about: what the mode does, in whole sentences.
    example: arguments beside --mode, as typed.
  """

  about: str
  example: str


# Modes whose networks run on the devices of all hosts. The others need one process.
TOGETHER = (
  "cache", "evaluate", "interpolate", "predict", "reconstruct", "redraw", "sample", "train"
)  # fmt: skip
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
    "Draws the clips of a saved sample again, from its global features, at other frame times. "
    "GLOBER only.",
    f"{_DIGITS} --frame_times=0,0.5,1",
  ),
  "reconstruct": Mode(
    "Encodes a video file, or clips of the test split, and draws them again. GLOBER only.",
    f"{_DIGITS} --input=clip.mp4",
  ),
  "evaluate": Mode(
    "Scores a workdir and sets every figure beside those of real and of trivial videos. --protocol "
    "names the protocol; --table fills a paper's table.",
    _DIGITS,
  ),
  "predict": Mode(
    "Predicts the frames after a video file, or after first frames of the test split. LGC-VD only.",
    f"{_SHIPPED} --input=clip.mp4 --num_frames=16",
  ),
  "interpolate": Mode(
    "Draws the frames between given ones. LGC-VD only.", f"{_SHIPPED} --input=clip.mp4 --gap=4"
  ),
  "ablation": Mode(
    "Trains and compares the variants of config.ablation with several seeds, in folders of "
    "--workdir.",
    "--config=configs/lgcvd_digits.py:occluded --workdir=runs/lgcvd_ablation",
  ),
  "sweep": Mode(
    "Measures quality against time for every sampler, grid and number of steps of config.sweep.",
    _DIGITS,
  ),
  "cache": Mode(
    "Runs a workdir's frozen networks over the training split once and keeps the result; stages "
    "that start later read it. GLOBER only.",
    f"{_DIGITS} --cache=global_features",
  ),
  "export": Mode(
    "Writes a workdir's averaged weights, scores and samples as the folder --out, with a model "
    "card. Other modes take that folder as their --workdir.",
    f"{_DIGITS} --out=exported/digits",
  ),
  "report": Mode("Writes report.html, which shows the run on one page.", _DIGITS),
  "compare": Mode("Prints score files, given as arguments, side by side.", "A.json B.json"),
  "plan": Mode(
    "Prints parameters, FLOPs and bytes of every stage, before anything is allocated. With "
    "--compile, whether every program fits slices of TPUs or GPUs that are not at hand.",
    "--config=configs/glober_sky.py --compile=v5p:2x2x2",
  ),
  "benchmark": Mode(
    "Measures speed: networks against PyTorch's, how fast clips are read (--inputs), or a paper's "
    "table of time and memory (--table).",
    "--inputs --config=configs/glober_sky.py --config.data.dir=STORE",
  ),
  "doctor": Mode(
    "Prints versions, devices and optional parts, and what is left to do. On several hosts, or "
    "with --config or --workdir, each host also prints its share of the data and the storage's "
    "speed.",
    "",
  ),
}
