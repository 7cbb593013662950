"""Config migrations: defaults for keys added later, so that old workdirs still load.

A workdir keeps the configuration it was trained with, so an old one lacks newer keys. Each newer
key is listed here with the value that reproduces what the code did before the key existed. A test
checks that the first keys and these make up all keys of a system.
"""

from typing import Any

_GLOBER_STAGES = ("kl_vae", "autoencoder", "generator")
_GLOBER_NETWORKS = ("kl_vae", "video_encoder", "frame_control", "unet", "discriminator")
_MOMENTS = {"b1": 0.9, "b2": 0.999}
_SWEEP = {
  "sweep.kinds": ("ddim", "ddpm", "dpmpp_2m", "unipc"),
  "sweep.steps": (2, 5, 10, 20, 50, 100),
}
_PROFILE = ("Nothing was traced.", {"profile.first_step": 10, "profile.num_steps": 0})
_STORES = ("Stores were read where they lie.", {"data.local_dir": ""})
_CHECKSUMS = ("Checkpoints had no checksums.", {"checksums": False})
# System -> (why the values change nothing, {key: value}), in the order of their addition.
ADDED: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
  "glober": (
    (
      "Normalisation used as many groups as divide the channels, up to 32.",
      {f"model.{name}.norm_groups": 32 for name in _GLOBER_NETWORKS},
    ),
    ("Frame time was added to features.", {"model.frame_control.scale_shift": False}),
    ("Overshoot at saturated pixels counted as error.", {"loss.kl_vae.saturate": False}),
    (
      "All networks began with random weights.",
      {f"init.{name}": "" for name in ("kl_vae", "unet", "generator", "text_encoder", "allow")},
    ),
    (
      "There was no text. Without text 'source' to 'vocabulary' have no effect, and the UNet "
      "cross-attended to a class token or a null token.",
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
      "Guidance had one scale; only the other forms read the two others.",
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
    ("Clips were mirrored whatever their text said.", {"text.tells_sides": False}),
    (
      "All pairs up to cra.max_timestep had equal weight, and the real samples were frames.",
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
    _PROFILE,
    _STORES,
  ),
  "lgcvd": (
    ("Clips had a single stride.", {"data.stride_multiples": (1,)}),
    ("Levels had two blocks.", {"model.blocks": 2}),
    ("Overshoot at saturated pixels counted as error.", {"objective.saturate": False}),
    (
      "The second stage was the release's; one-stage training used one window of each sample.",
      {"objective.second_stage": "release", "objective.one_stage": "halves"},
    ),
    ("Evaluations had no protocol; the default now has a name.", {"evaluate.protocol": "standard"}),
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
    _PROFILE,
    _STORES,
  ),
}


# Keys of LGC-VD's first evaluations, which had no protocol; no code reads them now.
GONE = ("evaluate.num_videos", "evaluate.trajectories")


def fill(config: dict[str, Any]) -> None:
  """Adds the keys that a saved configuration lacks, and removes keys that are no longer read.

  Raises:
    KeyError, TypeError, AttributeError: it is no configuration of a run.
  """
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
  config["stages"]  # what every system has; a KeyError where this is of something else
