"""GLOBER as a library: a trained model that encodes, reconstructs, generates and redraws clips."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from videodiff_jax import typed
from videodiff_jax.chunks import in_chunks
from videodiff_jax.glober import conditions, drawing, precision, stages
from videodiff_jax.glober.autoencoder import decode_frames, encode_frames
from videodiff_jax.glober.conditions import Prompts
from videodiff_jax.glober.drawing import Drawing, make_drawing
from videodiff_jax.glober.networks import Networks, build
from videodiff_jax.inputs.clips import keyframe_indices
from videodiff_jax.models.pixels import to_uint8
from videodiff_jax.text import embeddings
from videodiff_jax.training import partitioning
from videodiff_jax.training.checkpoints import CheckpointError
from videodiff_jax.training.workdir import building, load_ema, read_config, with_settings


@dataclasses.dataclass(frozen=True)
class Samples:
  """Drawn clips and their inputs.

  Attributes:
    videos: (n, f, h, w, c) uint8.
    global_features: (n, H'', W'', C'') float32.
    frame_times: (f,) tau in [0, 1].
    labels: (n,) classes; num_classes is 'no class'.
    prompts: (n,) texts; '' where none was given.
    seed: the seed of all noise.
  """

  videos: np.ndarray
  global_features: np.ndarray
  frame_times: np.ndarray
  labels: np.ndarray
  prompts: np.ndarray
  seed: int


@dataclasses.dataclass(frozen=True)
class _PerFrame:
  """Repeats each of n rows f times in succession, on demand, since text tokens are large."""

  rows: np.ndarray
  frames: int

  def __len__(self) -> int:
    return len(self.rows) * self.frames

  def __getitem__(self, chosen: slice) -> np.ndarray:
    return self.rows[np.arange(len(self))[chosen] // self.frames]


class Pipeline:
  """GLOBER with its averaged weights.

  Clip n takes its noise only from fold_in(key(seed), n). So it does not depend on the number of
  clips, the chunks in which frames are drawn, or the devices (up to rounding). A call draws clips
  from number `first` on, so that many clips can be drawn in parts that fit in memory.

  Settings come from `config.sample`; change them on a copy: `pipeline.with_settings(...)`.
  """

  def __init__(self, config: ml_collections.ConfigDict, params: dict[str, Any], mesh: Mesh):
    self.config = ml_collections.FrozenConfigDict(config)
    self.networks: Networks = build(config)
    self.params = params
    self.mesh = mesh

  @classmethod
  def from_workdir(cls, workdir: str | pathlib.Path, **settings: Any) -> "Pipeline":
    """Loads the newest complete checkpoints of a workdir, or an exported folder.

    Args:
      workdir: a workdir of training, or an exported folder.
      **settings: replace entries of `config.sample`, as in `with_settings`.

    Raises:
      CheckpointError: the folder is no workdir, a stage has no checkpoint, or the configuration has
        values that no pipeline can be built from.
    """
    workdir = typed.path(workdir)
    config = read_config(workdir)
    with building(workdir):
      mesh = partitioning.mesh_after(config.mesh.fsdp)
      ema: dict[str, dict[str, Any]] = {}
      for name in stages.NAMES:
        stage = stages.make_stage(config, name)
        ema[name] = load_ema(config, workdir, stage, mesh)
        averaged = ema[name].pop("ema_params")
        ema[name]["ema_params"] = precision.rounded(stage, averaged, config.precision)
        del averaged
      text: dict[str, Any] = {}
      if isinstance(conditions.of_config(config), conditions.Text):
        written = embeddings.read(workdir)
        if written is None:
          raise CheckpointError(f"{workdir} has lost its text.npz, the tokens of the empty prompt.")
        ema["text"], text["default_text"] = written, written["default"]
      pipeline = cls(config, stages.sampling_params(ema) | text, mesh)
    return pipeline.with_settings(**settings)

  def with_settings(self, **settings: Any) -> "Pipeline":
    """Returns a pipeline with the same weights and other entries of `config.sample`.

    `decoder` and `generator` take dicts that replace single keys (kind, num_steps, grid, eta).
    """
    return Pipeline(with_settings(self.config, settings), self.params, self.mesh)

  @property
  def frame_times(self) -> np.ndarray:
    """(F,) tau of a training clip's frames."""
    return drawing.frame_times(self.config)

  def encode(self, clips: np.ndarray) -> np.ndarray:
    """Encodes clips of training length (n, F, h, w, c) uint8 as global features.

    Returns:
      (n, H'', W'', C'') float32.

    Raises:
      ValueError: the clips have another type or shape.
    """
    data = self.config.data
    expected = (data.num_frames, data.image_size, data.image_size, data.channels)
    if clips.dtype != np.uint8 or clips.shape[1:] != expected:
      raise ValueError(
        f"Clips must be uint8 of shape (n, {', '.join(map(str, expected))}), not {clips.dtype} "
        f"{clips.shape}."
      )
    keys = clips[:, keyframe_indices(data.num_frames, data.num_keyframes)]
    return self._in_chunks("encode", self._encode, (keys,), data.num_keyframes)

  def reconstruct_frames(self, clips: np.ndarray) -> np.ndarray:
    """Passes clips (n, f, h, w, c) uint8 only through the KL-VAE, an upper bound for decoders."""
    frames = clips.reshape(-1, *clips.shape[2:])
    return self._in_chunks("KL-VAE", self._round_trip, (frames,), 1).reshape(clips.shape)

  def reconstruct(
    self,
    clips: np.ndarray,
    *,
    num_frames: int | None = None,
    frame_times: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    prompts: Prompts | None = None,
    seed: int = 0,
    first: int = 0,
  ) -> Samples:
    """Encodes clips and draws them again.

    Args:
      clips: (n, F, h, w, c) uint8, as in `encode`.
      num_frames: as in `generate`.
      frame_times: as in `generate`.
      labels: (n,) classes of the clips; 'no class' by default.
      prompts: as in `generate`.
      seed: as in `generate`.
      first: as in `generate`.

    Raises:
      ValueError: as in `encode` and `generate`.
    """
    return self.redraw(
      self.encode(clips),
      num_frames=num_frames,
      frame_times=frame_times,
      labels=labels,
      prompts=prompts,
      seed=seed,
      first=first,
    )

  def generate(
    self,
    num_videos: int = 1,
    *,
    num_frames: int | None = None,
    frame_times: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    prompts: Prompts | None = None,
    seed: int = 0,
    first: int = 0,
  ) -> Samples:
    """Generates new clips.

    Args:
      num_videos: n, the number of clips.
      num_frames: frames of each clip, evenly spaced over the time of a training clip; by default
        as many as a training clip has.
      frame_times: (f,) tau in [0, 1], instead of `num_frames`: any times, in any order.
      labels: one class for all clips, or (n,) one for each; by default drawn uniformly if the
        system has classes.
      prompts: one text for all clips, or one for each. The default is the one sentence of
        training, or the empty prompt.
      seed: the seed of all noise.
      first: the number of the first clip.

    Raises:
      ValueError: the system does not take such labels, prompts or times, or their number is wrong.
    """
    _check_count(num_videos)
    classes = self.networks.num_classes
    if labels is not None:
      labels = self._labels(labels, num_videos, classes - 1)
    elif classes:
      labels = np.random.default_rng(seed).integers(0, classes, first + num_videos)[first:]
    labels = self._labels(labels, num_videos, classes)
    times = self._times(num_frames, frame_times)
    condition, _ = self._condition(labels, prompts, num_videos)
    draw = functools.partial(self.features_program, seed=seed)
    numbers = np.arange(first, first + num_videos)
    features = self._in_chunks("global features", draw, (condition, numbers), 1)
    return self.redraw(
      features, frame_times=times, labels=labels, prompts=prompts, seed=seed, first=first
    )

  def redraw(
    self,
    global_features: np.ndarray,
    *,
    num_frames: int | None = None,
    frame_times: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    prompts: Prompts | None = None,
    seed: int = 0,
    first: int = 0,
  ) -> Samples:
    """Draws frames at any times from given global features.

    Args:
      global_features: (n, H'', W'', C'').
      num_frames: as in `generate`.
      frame_times: as in `generate`.
      labels: as in `generate`, or `Samples.labels`; 'no class' by default.
      prompts: as in `generate`.
      seed: as in `generate`.
      first: as in `generate`.

    Raises:
      ValueError: as in `generate`; or the features have another shape or are not finite.
    """
    times = self._times(num_frames, frame_times)
    features = np.asarray(global_features, np.float32)
    if features.shape[1:] != tuple(self.networks.feature_shape) or not np.isfinite(features).all():
      raise ValueError(
        "Global features must be finite numbers of shape "
        f"{('n', *self.networks.feature_shape)}; the shape given is {features.shape}."
      )
    n, f = len(features), len(times)
    _check_count(n)
    labels = self._labels(labels, n, self.networks.num_classes)
    condition, texts = self._condition(labels, prompts, n)
    rows = (
      _PerFrame(features, f),
      np.tile(times.astype(np.float32), n),
      _PerFrame(condition, f),
      np.repeat(np.arange(first, first + n), f),
    )
    draw = functools.partial(self.frames_program, seed=seed)
    frames = self._in_chunks("frames", draw, rows, 1)
    videos = frames.reshape(n, f, *frames.shape[1:])
    return Samples(videos, features, times, labels, texts, seed)

  def conditions(
    self,
    num_videos: int,
    *,
    labels: ArrayLike | None = None,
    prompts: Prompts | None = None,
  ) -> np.ndarray:
    """Returns the condition's values (n, ...), see conditions.py; arguments as in `redraw`."""
    labels = self._labels(labels, num_videos, self.networks.num_classes)
    return self._condition(labels, prompts, num_videos)[0]

  def _times(self, num_frames: int | None, frame_times: ArrayLike | None) -> np.ndarray:
    """Returns tau (f,) of the frames to draw."""
    if frame_times is None:
      times = np.asarray(self.frame_times, np.float64)
      if num_frames is None:
        return times
      if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}; draw at least 1.")
      return np.linspace(times[0], times[-1], num_frames)
    if num_frames is not None:
      raise ValueError("num_frames and frame_times were given: give one of them.")
    times = np.asarray(frame_times, np.float64)
    if times.ndim != 1 or not len(times) or not np.all((times >= 0) & (times <= 1)):
      raise ValueError("frame_times must be a non-empty list of numbers between 0 and 1.")
    return times

  def _labels(self, labels: ArrayLike | None, num_videos: int, highest: int) -> np.ndarray:
    """Returns labels (n,) int32 from 0 to `highest`; num_classes is 'no class'."""
    classes = self.networks.num_classes
    if labels is None:
      return np.full(num_videos, classes, np.int32)
    given = np.atleast_1d(labels)
    if given.dtype.kind not in "iu":
      raise ValueError(f"Class labels must be whole numbers, not {given.dtype}.")
    if given.shape not in ((1,), (num_videos,)):
      raise ValueError(
        f"Class labels of shape {given.shape} do not fit {num_videos} videos: give one for all, "
        "or one for each."
      )
    if (wrong := given[(given < 0) | (given > highest)]).size:
      has = f"classes 0 to {classes - 1}" if classes else "no classes"
      raise ValueError(f"Class label {wrong[0]} was asked for, but this system has {has}.")
    return np.broadcast_to(given.astype(np.int32), num_videos)

  def _condition(
    self, labels: np.ndarray, prompts: Prompts | None, num_videos: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the condition's values (n, ...), and the n prompts."""
    condition = self.networks.condition
    values = conditions.requested(condition, labels, prompts, self.params, self.encode_prompts)
    return values, np.broadcast_to(np.asarray("" if prompts is None else prompts, str), num_videos)

  def encode_prompts(self, prompts: Sequence[str]) -> np.ndarray:
    """Encodes n prompts as tokens (n, l, d) by the text encoder of training.

    Raises:
      FileNotFoundError: the encoder's files are missing; the message says what to do.
      ModuleNotFoundError: a package is missing; the message says what to install.
      ValueError: the encoder found is not that of training.
    """
    *tokens, null = self._text_encoder([*prompts, ""])
    if not np.allclose(null, self.params["null_text"], atol=1e-3):
      raise ValueError(
        "This system was trained with another text encoder than the one found "
        f"({self.config.text.encoder}): give config.init.text_encoder the weights of training."
      )
    return np.stack(tokens)

  @functools.cached_property
  def _text_encoder(self) -> embeddings.TextEncoder:
    settings = self.config.text
    return embeddings.load_encoder(
      settings.encoder, settings.length, self.config.init.text_encoder, settings.vocabulary
    )

  def _in_chunks(self, what: str, function: Any, rows: tuple, frames_per_row: int) -> np.ndarray:
    """Calls a compiled function on equal chunks of rows; the last one is padded.

    A chunk has `config.sample.frames_per_chunk` frames per device, or fewer if fewer are needed.
    """
    devices, total = self.mesh.devices.size, len(rows[0])
    size = max(self.config.sample.frames_per_chunk // frames_per_row, 1)
    size = min(size, -(-total // devices)) * devices

    def call(*chunk: np.ndarray) -> jax.Array:
      placed = partitioning.put_whole(dict(enumerate(chunk)), self.mesh)
      return function(self.params, *placed.values())

    with jax.set_mesh(self.mesh):
      return in_chunks(call, rows, size, what)

  @functools.cached_property
  def _drawing(self) -> Drawing:
    return make_drawing(self.config, self.networks)

  @functools.cached_property
  def _encode(self) -> Callable[..., jax.Array]:
    return jax.jit(self._drawing.encode)

  @functools.cached_property
  def _round_trip(self) -> Callable[..., jax.Array]:
    @jax.jit
    def round_trip(params: Any, frames: jax.Array) -> jax.Array:
      model, weights = self.networks.kl_vae, partitioning.gather(params["kl_vae"])
      z = encode_frames(model, weights, params["latent_statistics"], frames, None)
      return to_uint8(decode_frames(model, weights, params["latent_statistics"], z))

    return round_trip

  @functools.cached_property
  def features_program(self) -> jax.stages.Wrapped:
    """The jitted (params, condition, clips, seed) -> global features, a row for each clip."""

    @jax.jit
    def draw(params: Any, condition: jax.Array, clips: jax.Array, seed: jax.Array) -> jax.Array:
      keys = _clip_keys(seed, clips)
      return self._drawing.draw_features(params, condition, keys)

    return draw

  @functools.cached_property
  def frames_program(self) -> jax.stages.Wrapped:
    """The jitted (params, v, times, condition, clips, seed) -> frames uint8, a row for each."""

    @jax.jit
    def draw(
      params: Any,
      v: jax.Array,
      times: jax.Array,
      condition: jax.Array,
      clips: jax.Array,
      seed: jax.Array,
    ) -> jax.Array:
      keys = _clip_keys(seed, clips)
      return to_uint8(self._drawing.draw_frames(params, v, times, condition, keys))

    return draw


def _clip_keys(seed: jax.Array, clips: jax.Array) -> jax.Array:
  return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), clips)


def _check_count(num_videos: int) -> None:
  if num_videos < 1:
    raise ValueError(f"{num_videos} videos were asked for; draw at least 1.")
