"""What can be told wrong about a run before anything is compiled: one clear error each."""

import contextlib
import json
import math
import pathlib
from collections.abc import Iterator

import jax
import ml_collections

from data.prepare import EMBEDDED
from videodiff_jax.diffusion import noise, samplers
from videodiff_jax.glober import adversarial, frame_stage, networks, stages
from videodiff_jax.inputs.clips import SAMPLINGS
from videodiff_jax.inputs.frame_store import FrameStore, StoreError
from videodiff_jax.inputs.video_io import VideoError
from videodiff_jax.training import optimizers, partitioning
from videodiff_jax.training.checkpoints import CheckpointError
from videodiff_jax.training.loop import NonFiniteLossError

# Keys that may differ between a workdir's config.json and the run that goes on in it.
_MAY_CHANGE = ("after", "evaluate", "mesh", "precision", "remat", "sample", "stages")
_MAY_CHANGE_DATA = ("dir", "threads")
_MAY_CHANGE_TRAIN = (
  "accumulate", "checkpoint_every", "keep", "log_every", "preview_every", "steps"
)  # fmt: skip


class UserError(ValueError):
  """Something to be put right by the person who gave the command; shown without a traceback."""


@contextlib.contextmanager
def told() -> Iterator[None]:
  """Around library calls whose ValueError or ImportError is about what the user asked for."""
  try:
    yield
  except (ValueError, ImportError) as error:
    raise UserError(str(error)) from error


def expected_errors() -> tuple[type[Exception], ...]:
  """Errors of other modules that a person can act on as they stand."""
  files = (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError)
  return (CheckpointError, NonFiniteLossError, StoreError, VideoError, *files)


def check_config(config: ml_collections.ConfigDict) -> None:
  """Raises UserError for values that no network or loop could be made of."""
  data, model, loss = config.data, config.model, config.loss
  _choice("system", config.system, ("glober",))
  _choice("condition", config.condition, networks.CONDITIONS)
  _choice("precision", config.precision, ("float32", "bfloat16"))
  _choice("remat", config.remat, ("none", "blocks"))
  _choice("data.sampling", data.sampling, SAMPLINGS)
  _choice("data.frame_time", data.frame_time, ("index / F", "index / (F - 1)"))
  _choice("model.frame_control.which", model.frame_control.which, ("all", "down"))
  _choice("model.video_encoder.head", model.video_encoder.head, ("joint", "split_first"))
  _choice("model.discriminator.on", model.discriminator.on, ("pixels", "latents"))
  _choice("loss.cra.loss", loss.cra.loss, adversarial.LOSSES)
  _choice("loss.kl_vae.reconstruction", loss.kl_vae.reconstruction, frame_stage.RECONSTRUCTIONS)
  _choice("sample.noise", config.sample.noise, noise.SHARINGS)
  for name in config.stages:
    _choice("stages", name, stages.NAMES)
    _choice(f"train.{name}.optimizer.decay", config.train[name].optimizer.decay, optimizers.DECAYS)
    for key in ("batch_size", "accumulate", "log_every", "checkpoint_every", "preview_every"):
      _positive(f"train.{name}.{key}", config.train[name][key])
  if tuple(config.stages) != tuple(n for n in stages.NAMES if n in config.stages):
    raise UserError(f"config.stages must keep the order {', '.join(stages.NAMES)}.")
  if config.condition == "class" and data.num_classes < 1:
    raise UserError("config.condition is 'class', but config.data.num_classes is 0.")
  for key in ("image_size", "channels", "stride"):
    _positive(f"data.{key}", data[key])
  if data.num_frames < 2:
    raise UserError(f"config.data.num_frames is {data.num_frames}; a clip has at least 2.")
  for key in ("num_keyframes", "num_targets"):
    if not 1 <= data[key] <= data.num_frames:
      raise UserError(
        f"config.data.{key} is {data[key]}; it must be between 1 and the {data.num_frames} "
        "frames of a clip (config.data.num_frames)."
      )
  if loss.lambda_cra and data.num_targets % 2:
    raise UserError(
      f"The CRA loss judges pairs of frames: config.data.num_targets ({data.num_targets}) must "
      "be even, or config.loss.lambda_cra 0."
    )
  for key in ("num_real", "num_fake"):
    if config.evaluate[key] < 2:
      raise UserError(f"config.evaluate.{key} is {config.evaluate[key]}; FVD needs at least 2.")
  _check_sizes(config)
  try:
    built = networks.build(config)
  except ValueError as error:
    raise UserError(f"config.model and config.diffusion: {error}") from error
  processes = {"decoder": built.decoder_process, "generator": built.generator_process}
  for name, process in processes.items():
    try:
      samplers.make_sampler(process, **config.sample[name])
    except ValueError as error:
      raise UserError(f"config.sample.{name}: {error}") from error


def check_training(config: ml_collections.ConfigDict) -> None:
  """Raises UserError for a mesh or a batch that does not fit the devices, or no data."""
  try:
    mesh = partitioning.make_mesh(config.mesh.data, config.mesh.fsdp)
  except ValueError as error:
    raise UserError(str(error)) from error
  devices = mesh.devices.size
  for name in config.stages:
    batch, accumulate = config.train[name].batch_size, config.train[name].accumulate
    unit = devices * accumulate
    if batch % unit:
      raise UserError(
        f"config.train.{name}.batch_size ({batch}) must be a multiple of the {devices} "
        f"device(s) times config.train.{name}.accumulate ({accumulate}): for example "
        f"{-(-batch // unit) * unit}."
      )
  if not config.data.dir and config.data.name not in EMBEDDED:
    raise UserError(
      "config.data.dir is empty. Prepare a store (python -m data.prepare --help) and give its "
      "folder as --config.data.dir=DIR."
    )


def check_store(config: ml_collections.ConfigDict, store: FrameStore) -> None:
  """Raises UserError where the prepared store is not what the configuration describes."""
  data = config.data
  where = f"The store {data.dir or data.name}"
  for name in ("image_size", "channels"):
    if getattr(store, name) != data[name]:
      raise UserError(
        f"{where} has {name} {getattr(store, name)}, but config.data.{name} is {data[name]}. "
        "Prepare another store (python -m data.prepare --help) or change the key."
      )
  if config.condition == "class" and len(store.classes) != data.num_classes:
    raise UserError(
      f"{where} has {len(store.classes)} classes, but config.data.num_classes is "
      f"{data.num_classes}."
    )


def check_same_run(
  saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> None:
  """Raises UserError where model, data, diffusion or loss differ from the workdir's own."""
  before, now = _lasting(saved), _lasting(config)
  different = [
    f"  config.{key}: {before.get(key, 'absent')} there, {now.get(key, 'absent')} now"
    for key in sorted(before.keys() | now.keys())
    if before.get(key) != now.get(key)
  ]
  if different:
    raise UserError(
      f"{workdir} holds a run of another configuration:\n" + "\n".join(different[:10]) + "\n"
      "Use another --workdir, or give the same values. Steps, mesh, sampling, evaluation and "
      "logging may change."
    )


def _lasting(config: ml_collections.ConfigDict) -> dict[str, str]:
  """'a.b.c' -> JSON of every key that must stay as it is over the life of a workdir."""
  flat: dict[str, str] = {}

  def add(prefix: str, tree: dict) -> None:
    for key, value in tree.items():
      if isinstance(value, dict):
        add(f"{prefix}{key}.", value)
      else:
        flat[prefix + key] = json.dumps(value)

  add("", json.loads(config.to_json()))
  skipped = {*_MAY_CHANGE, *(f"data.{key}" for key in _MAY_CHANGE_DATA)}
  for stage in stages.NAMES:
    skipped |= {f"train.{stage}.{key}" for key in _MAY_CHANGE_TRAIN}
  return {
    key: value
    for key, value in flat.items()
    if key not in skipped and key.split(".")[0] not in skipped
  }


def _check_sizes(config: ml_collections.ConfigDict) -> None:
  model, size = config.model, config.data.image_size
  on_pixels = model.discriminator.on == "pixels"
  chains = [("kl_vae", "video_encoder"), ("kl_vae", "unet")]
  chains.append(("discriminator",) if on_pixels else ("kl_vae", "discriminator"))
  for names in chains:
    rate = math.prod(2 ** (len(model[name].multipliers) - 1) for name in names)
    if size % rate:
      keys = " and ".join(f"config.model.{name}.multipliers" for name in names)
      raise UserError(
        f"config.data.image_size ({size}) must be a multiple of {rate}: a factor 2 for each "
        f"multiplier after the first in {keys}."
      )


def _choice(key: str, value: str, choices: tuple[str, ...]) -> None:
  if value not in choices:
    raise UserError(f"config.{key} is {value!r}. Choose one of: {', '.join(choices)}.")


def _positive(key: str, value: int) -> None:
  if value < 1:
    raise UserError(f"config.{key} is {value}; it must be at least 1.")


def local_devices() -> str:
  """For tables: how many devices of what kind, over how many hosts."""
  devices = jax.devices()
  hosts = f" over {jax.process_count()} hosts" if jax.process_count() > 1 else ""
  return f"{len(devices)} x {devices[0].device_kind}{hosts}"
