"""Malformed command lines: single keys of configurations, flags of every mode, and the nonsense."""

import importlib
import json
import random
from collections.abc import Iterator

import ml_collections

from tests.faults import mutate

CONFIGS = ("glober_digits", "lgcvd_digits", "glober_ucf101", "lgcvd_bair")

# Numbers that may be below zero.
_MAY_BE_NEGATIVE = ("mesh.data", "model.video_encoder.logvar_bias")
# Values that must be refused, whatever else stands in the configuration.
NONSENSE = {
  "glober_digits": (
    "after=('nope',)", "after=nope", "after=('predict',)", "after=('train',)", "stages=('nope',)",
    "stages=('generator', 'kl_vae')", "train.kl_vae.steps=0", "train.kl_vae.steps=-1",
    "train.kl_vae.keep=0", "train.kl_vae.ema.decay=2", "train.kl_vae.ema.interval=0",
    "train.kl_vae.optimizer.learning_rate=0", "train.kl_vae.optimizer.decay=nope",
    "loss.drop_video=2", "loss.drop_condition=1.5", "loss.cra.loss=nope", "loss.cra.real=nope",
    "loss.cra.weighting=nope", "diffusion.schedule.beta_start=0",
    "diffusion.schedule.beta_end=2", "diffusion.schedule.kind=nope",
    "diffusion.decoder.prediction_type=nope", "diffusion.decoder.timestep_power=0",
    "sample.num_videos=0", "sample.frames_per_chunk=0", "sample.noise=nope",
    "sample.guidance_form=nope", "sample.decoder.kind=nope", "sample.decoder.num_steps=0",
    "sample.decoder.num_steps=1001", "sample.decoder.grid=nope", "precision=float8",
    "remat=maybe", "condition=maybe", "system=nope", "data.sampling=nope", "data.cache=nope",
    "data.threads=0", "data.threads=100000", "data.stride=0", "data.num_frames=1",
    "data.num_keyframes=99", "data.channels=2", "data.image_size=0",
    "data.image_size=1000000000", "mesh.cpu_devices=1000000", "mesh.fsdp=0",
    "model.dit.width=0", "model.dit.depth=0", "model.dit.num_heads=7", "model.unet.channels=0",
    "model.unet.multipliers=()", "model.kl_vae.z_channels=0", "model.frame_control.which=nope",
    "init.allow=[(", "seed=18446744073709551616", "text.encoder=nope",
  ),
  "lgcvd_digits": (
    "after=('nope',)", "after=('redraw',)", "train.lgcvd.steps=0", "train.lgcvd.keep=0",
    "train.lgcvd.ema.decay=2", "train.lgcvd.optimizer.clip_norm=nan", "tasks.shares.prediction=2",
    "tasks.per=nope", "objective.two_stage=nope", "diffusion.process.timestep_power=0",
    "diffusion.process.prediction_type=nope", "sample.num_videos=0", "sample.num_frames=0",
    "sample.trajectories=0", "sample.past=0", "sample.sampler.kind=nope",
    "sample.sampler.num_steps=0", "sample.last_fragment=nope", "fragment.num_frames=0",
    "fragment.slots=0", "model.channels=0", "model.multipliers=()",
    "model.decoder_attention=nope", "evaluate.protocol=nope",
  ),
}  # fmt: skip


def keys(name: str) -> dict[str, object]:
  """'a.b.c' -> value, of a configuration in small."""
  config = importlib.import_module(f"configs.{name}").get_config("smoke")
  flat: dict[str, object] = {}

  def walk(tree: ml_collections.ConfigDict, prefix: str) -> None:
    for key, value in tree.items():
      if isinstance(value, ml_collections.ConfigDict):
        walk(value, f"{prefix}{key}.")
      else:
        flat[prefix + key] = value

  walk(config, "")
  return flat


def configurations(seed: int, count: int) -> list[str]:
  """'NAME KEY=VALUE', all different."""
  rng, known = random.Random(seed), {name: keys(name) for name in CONFIGS}
  found: dict[str, None] = {}
  while len(found) < count:
    name = rng.choice(CONFIGS)
    key, value = rng.choice(list(known[name].items()))
    found[f"{name} {key}={rng.choice(_values_for(value))}"] = None
  return list(found)


def saved_values(seed: int, count: int) -> list[str]:
  """'SYSTEM KEY JSON', all different: a value in a workdir's config.json."""
  rng, known = random.Random(seed), {name: keys(f"{name}_digits") for name in MODES}
  found: dict[str, None] = {}
  while len(found) < count:
    system = rng.choice(list(MODES))
    key = rng.choice(list(known[system]))
    found[f"{system} {key} {json.dumps(rng.choice(mutate.JSONS))}"] = None
  return list(found)


def _values_for(value: object) -> tuple[str, ...]:
  if isinstance(value, bool):
    return mutate.FLAGS
  if isinstance(value, (int, float)):
    return mutate.NUMBERS
  return mutate.TUPLES if isinstance(value, tuple) else mutate.TEXTS


def nonsense() -> Iterator[str]:
  """The list, and of every number of both systems NaN, infinity and a value below zero."""
  for name, settings in NONSENSE.items():
    yield from (f"{name} {setting}" for setting in settings)
    for key, value in keys(name).items():
      if isinstance(value, (int, float)) and not isinstance(value, bool):
        wrong = ("nan", "inf") if isinstance(value, float) else ()
        for text in (*wrong, *(("-1",) if key not in _MAY_BE_NEGATIVE else ())):
          yield f"{name} {key}={text}"


# ---- flags

MODES = {
  "glober": ("sample", "redraw", "reconstruct", "evaluate", "sweep", "cache", "export", "plan"),
  "lgcvd": ("sample", "predict", "interpolate", "evaluate", "sweep", "export", "plan"),
}
_FLAGS = {
  "num_videos": mutate.NUMBERS, "num_frames": mutate.NUMBERS, "steps": mutate.NUMBERS,
  "frame_times": ("nan", "0,nan", "0,2", "-1", "0,0.5,one", ",", "inf", "", "0;1"),
  "start": mutate.NUMBERS, "end": mutate.NUMBERS, "guidance_scale": mutate.NUMBERS,
  "class_label": mutate.NUMBERS, "trajectories": mutate.NUMBERS, "past": mutate.NUMBERS,
  "future": mutate.NUMBERS, "gap": mutate.NUMBERS, "seed": mutate.NUMBERS,
  "sampler": mutate.TEXTS, "protocol": mutate.TEXTS, "input": mutate.TEXTS, "out": mutate.TEXTS,
  "notes": mutate.TEXTS, "prompts": mutate.TEXTS, "cache": ("latents", "nope", ""),
  "stage": ("kl_vae", "nope", ""), "table": ("glober_1a", "nope", "glober_2", ""),
  "workdir": ("", "nope", "~/nope", "s3://x/y", "x" * 300, "/dev/null", "README.md", "/", "\n"),
  "config": ("nope", "README.md", "configs/common.py", "configs/glober_digits.py:nope", "",
             "x" * 300, "configs", "/dev/null", "configs/lgcvd_digits.py:smoke,smoke"),
}  # fmt: skip
# Flags that must be refused, whatever the mode knows them to be.
NONSENSE_FLAGS = {
  "glober": (
    *(f"sample --{flag}" for flag in (
      "guidance_scale=nan", "guidance_scale=inf", "guidance_scale=-3", "guidance_scale=1e38",
      "frame_times=nan", "start=nan", "end=inf", "start=-1", "end=2", "seed=-1",
      "seed=18446744073709551616", "protocol=nope", "cache=latents", "stage=kl_vae",
      "input=x.mp4", "class_label=-1", "class_label=10", "sampler=nope", "steps=-1",
      "num_videos=-1", "num_frames=0", "table=glober_1a", "notes=README.md", "inputs",
      "trajectories=2")),
    *(f"{mode} --{flag}" for mode in ("redraw", "reconstruct") for flag in (
      "seed=-1", "guidance_scale=nan", "frame_times=nan", "protocol=nope", "stage=kl_vae",
      "input=README.md", "input=/no/such")),
    "evaluate --protocol=nope", "evaluate --prompts=x", "evaluate --input=x.mp4",
    "sweep --steps=-1", "cache", "plan --guidance_scale=2", "report --num_videos=3",
    "sample word", "export --out=/dev/null/x", "predict", "nope",
  ),
  "lgcvd": (
    *(f"{mode} --{flag}" for mode in ("sample", "predict", "interpolate") for flag in (
      "seed=-1", "steps=-1", "sampler=nope", "num_videos=0", "protocol=nope",
      "guidance_scale=2", "stage=lgcvd", "prompts=x", "cache=latents")),
    "predict --past=-1", "predict --trajectories=0", "predict --input=README.md",
    "interpolate --gap=-2", "interpolate --future=-1", "evaluate --protocol=nope",
    "sample --input=x.mp4", "redraw", "reconstruct",
  ),
}  # fmt: skip


def flags(seed: int, count: int) -> list[str]:
  """'SYSTEM MODE --FLAG=VALUE ...', all different."""
  rng = random.Random(seed)
  found: dict[str, None] = {}
  while len(found) < count:
    system = rng.choice(list(MODES))
    chosen = rng.sample(list(_FLAGS), rng.choice((1, 1, 1, 2)))
    given = "\0".join(f"--{name}={rng.choice(_FLAGS[name])}" for name in chosen)
    found[f"{system} {rng.choice(MODES[system])} {given}"] = None
  # What a plan is made of are the real networks, which take long to trace.
  return [case for case in found if " plan " not in case]
