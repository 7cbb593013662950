"""Configuration keys that came after the first workdirs: what a run was before each of them.

A workdir keeps the configuration it was trained with, so an old one lacks keys. Each is here with
the value that does exactly what the code did before there was a choice; that a system's keys are
the first ones and these is tested.
"""

from typing import Any

_GLOBER_STAGES = ("kl_vae", "autoencoder", "generator")
_GLOBER_NETWORKS = ("kl_vae", "video_encoder", "frame_control", "unet", "discriminator")
_MOMENTS = {"b1": 0.9, "b2": 0.999}
_SWEEP = {
  "sweep.kinds": ("ddim", "ddpm", "dpmpp_2m", "unipc"),
  "sweep.steps": (2, 5, 10, 20, 50, 100),
}
_CHECKSUMS = ("Checkpoints had no checksums.", {"checksums": False})
# System -> (why the values change nothing, {key: value}), in the order they came in.
ADDED: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
  "glober": (
    (
      "As many groups as divide the channels, up to 32, were the rule.",
      {f"model.{name}.norm_groups": 32 for name in _GLOBER_NETWORKS},
    ),
    ("Frame time was added to features.", {"model.frame_control.scale_shift": False}),
    ("What is past an end counted as error.", {"loss.kl_vae.saturate": False}),
    (
      "All networks began as drawn.",
      {f"init.{name}": "" for name in ("kl_vae", "unet", "generator", "text_encoder", "allow")},
    ),
    (
      "There was no text. 'source' to 'vocabulary' say nothing without it, and a class or nothing "
      "is a token that the UNet attends to across.",
      {
        "text.source": "prompt",
        "text.prompt": "",
        "text.encoder": "none",
        "text.length": 77,
        "text.vocabulary": "",
        "model.unet.text_attention": "cross",
        "evaluate.directions": False,
      },
    ),
    (
      "Guidance had one scale; the two others are read in the other forms alone.",
      {
        "sample.guidance_form": "single",
        "sample.guidance_video": 1.5,
        "sample.guidance_text": 1.5,
      },
    ),
    ("There were no caches.", {"data.cache": "none"}),
    ("The CPU was one device.", {"mesh.cpu_devices": 1}),
    (
      "Averages had their decay from the first step.",
      {f"train.{name}.ema.warmup": False for name in _GLOBER_STAGES},
    ),
    ("Clips were mirrored whatever was said of them.", {"text.tells_sides": False}),
    (
      "All pairs up to cra.max_timestep counted alike, frames being the real ones.",
      {"loss.cra.weighting": "uniform", "loss.cra.real": "frames"},
    ),
    (
      "Adam had torch's moments.",
      {
        f"train.{name}.optimizer.{key}": value
        for name in _GLOBER_STAGES
        for key, value in _MOMENTS.items()
      },
    ),
    (
      "Nothing was validated, or compared with another run.",
      {f"train.{name}.validate_every": 0 for name in _GLOBER_STAGES} | {"expected": ""},
    ),
    ("Nothing read digits.", {"evaluate.digits": False}),
    ("There were no sweeps.", {**_SWEEP, "sweep.grids": ("uniform", "log_snr")}),
    ("No run began with another's weights.", {"init.run": ""}),
    _CHECKSUMS,
  ),
  "lgcvd": (
    ("Clips had the one stride.", {"data.stride_multiples": (1,)}),
    ("Levels had two blocks.", {"model.blocks": 2}),
    ("Black drawn blacker counted as error.", {"objective.saturate": False}),
    (
      "The second stage was the release's; with one stage a sample trained one window.",
      {"objective.second_stage": "release", "objective.one_stage": "halves"},
    ),
    ("An evaluation had no name; today's default has one.", {"evaluate.protocol": "standard"}),
    ("The CPU was one device.", {"mesh.cpu_devices": 1}),
    ("Averages had their decay from the first step.", {"train.lgcvd.ema.warmup": False}),
    (
      "Adam had torch's moments.",
      {f"train.lgcvd.optimizer.{key}": value for key, value in _MOMENTS.items()},
    ),
    ("Sampling had the precision of training.", {"sample.precision": ""}),
    (
      "Nothing was validated, or compared with another run.",
      {"train.lgcvd.validate_every": 0, "expected": ""},
    ),
    ("Nothing read digits.", {"evaluate.digits": False}),
    ("There were no sweeps.", {**_SWEEP, "sweep.grids": ("uniform", "spaced")}),
    ("No run began with another's weights.", {"init.run": ""}),
    _CHECKSUMS,
  ),
}


# Of LGC-VD's first evaluations, which had no protocol.
GONE = ("evaluate.num_videos", "evaluate.trajectories")


def fill(config: dict[str, Any]) -> None:
  """Adds what a saved configuration of a known system lacks, and takes out what is read no more."""
  if config["system"] == "lgcvd":
    for key in GONE:
      group, name = key.split(".")
      config.get(group, {}).pop(name, None)
  for _, values in ADDED.get(config["system"], ()):
    for key, value in values.items():
      *groups, name = key.split(".")
      tree = config
      for group in groups:
        tree = tree.setdefault(group, {})
      tree.setdefault(name, value)
