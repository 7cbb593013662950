"""Draws videos of any length, fragment by fragment, with one compiled function (Sec. 3.2).

A fragment shares k frames with the fragment before it, its local context. That whole fragment is
encoded as its global context. Only one fragment is in memory, whatever the video's length.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from videodiff_jax import shares
from videodiff_jax.choices import check_choice
from videodiff_jax.diffusion.process import Process
from videodiff_jax.diffusion.samplers import Sampler, sample
from videodiff_jax.lgcvd.conditioning import (
  empty_fragment,
  local_condition,
  put_frames,
  split_frames,
  stack_frames,
)
from videodiff_jax.lgcvd.model import ContextModel
from videodiff_jax.models.outputs import output
from videodiff_jax.training import partitioning

LAST_FRAGMENTS = ("truncate", "right_aligned")
GIVEN_FRAMES = ("kept", "redrawn")
ENCODER_WEIGHTS = ("ema", "raw")


def sampling_params(params: Any, ema_params: Any, encoder_weights: str = "ema") -> Any:
  """Returns the averaged UNet with the averaged encoder, or the 'raw' encoder (as released)."""
  check_choice("encoder_weights", encoder_weights, ENCODER_WEIGHTS)
  if encoder_weights == "raw" and params is None:
    raise ValueError(
      "config.sample.encoder_weights is 'raw', but an exported run holds only averaged weights: "
      "choose 'ema'."
    )
  source = params if encoder_weights == "raw" else ema_params
  # Without an encoder both choices are the same.
  chosen = {k: v for k, v in source["params"].items() if k == "encoder"}
  return {"params": ema_params["params"] | chosen}


class Memory(NamedTuple):
  """The state carried from one fragment to the next.

  Attributes:
    fragment: (b, h, w, F c) the last fragment; U before the first.
    context: (b, h', w', C) the global context that conditioned it; None without an encoder.
    count: number of fragments drawn so far.
  """

  fragment: jax.Array
  context: jax.Array | None
  count: jax.Array  # type: ignore[assignment]  # hides the method of tuples, which nobody calls


class Window(NamedTuple):
  """A fragment's place in the video: it begins at `start` and gives the frames [`first`, `end`)."""

  start: int
  first: int
  end: int


@dataclasses.dataclass(frozen=True, eq=False)
class Rollout:
  """Samples the fragments of a video one after another.

  Attributes:
    model: both networks.
    process: the diffusion process of fragments.
    sampler: the reverse process; it should clip, since pixels have a range.
    num_frames: F.
    slots: k.
    last_fragment: 'truncate' draws whole fragments and cuts the video, so that its frames do not
      depend on its length; 'right_aligned' ends the last fragment with the video (as released).
    given_frames: 'kept' copies the conditioning frames into the fragment; 'redrawn' leaves the
      model's reconstruction of them in the video (as released).
    average_features: averages each global context with the one before (as released).
  """

  model: ContextModel
  process: Process
  sampler: Sampler
  num_frames: int = 8
  slots: int = 2
  last_fragment: str = "truncate"
  given_frames: str = "kept"
  average_features: bool = False

  def __post_init__(self) -> None:
    check_choice("last_fragment", self.last_fragment, LAST_FRAGMENTS)
    check_choice("given_frames", self.given_frames, GIVEN_FRAMES)

  def windows(self, total: int) -> tuple[Window, ...]:
    """Returns the windows that cover a video of `total` frames.

    Raises:
      ValueError: the video is right-aligned and shorter than a fragment.
    """
    new = self.num_frames - self.slots
    count = max(-(-(total - self.slots) // new), 1)
    starts = [i * new for i in range(count)]
    firsts = list(starts)
    if self.last_fragment == "right_aligned":
      if total < self.num_frames:
        raise ValueError(
          f"A right-aligned video has {self.num_frames} frames or more, not {total}: use "
          "last_fragment='truncate', or ask for more frames."
        )
      if rest := (total - self.slots) % new:
        starts[-1], firsts[-1] = total - self.num_frames, total - rest
    return tuple(Window(*w) for w in zip(starts, firsts, [*firsts[1:], total]))

  def start(self, params: Any, shape: tuple[int, ...]) -> Memory:
    """Returns the memory before the first fragment, whose shape is (b, h, w, F c)."""
    fragment = empty_fragment(shape)
    abstract = jax.eval_shape(lambda: self.model.apply(params, fragment, method="encode"))
    context = None if abstract is None else jnp.zeros(abstract.shape, abstract.dtype)
    return Memory(fragment, context, jnp.zeros((), jnp.int32))

  def draw_fragment(
    self,
    params: Any,
    memory: Memory,
    frames: jax.Array,
    positions: jax.Array,
    x_T: jax.Array,
    keys: jax.Array | None = None,
    noise: jax.Array | None = None,
  ) -> tuple[jax.Array, Memory]:
    """Draws one fragment by one reverse process.

    Args:
      params: from `sampling_params`.
      memory: from `start` or from the fragment before.
      frames: (b, k, h, w, c) conditioning frames in [-1, 1].
      positions: (b, k) their positions in the fragment, -1 for an empty slot.
      x_T: (b, h, w, F c) starting noise.
      keys: (b,) PRNG keys of the sampler's noise; or give `noise`.
      noise: (steps, b, h, w, F c), the sampler's noise itself.

    Returns:
      The fragment (b, F, h, w, c) in [-1, 1], and the memory after it.
    """
    params = partitioning.gather(params)
    context = output(self.model, params, memory.fragment, method="encode")
    if self.average_features and context is not None:
      before = jnp.where(memory.count > 0, 0.5, 0.0)
      context += before * (memory.context - context)
    condition = local_condition(frames, positions, self.num_frames)

    def denoise(x: jax.Array, t: jax.Array, carry: Any) -> tuple[jax.Array, Any]:
      return output(self.model, params, x, t, condition, context, method="denoise"), carry

    x_0 = sample(denoise, self.process, self.sampler, x_T, keys, noise=noise)
    fragment = split_frames(x_0, self.num_frames)
    if self.given_frames == "kept":
      fragment = put_frames(fragment, frames, positions)
    return fragment, Memory(stack_frames(fragment), context, memory.count + 1)

  @functools.cached_property
  def step(self) -> jax.stages.Wrapped:
    """The jitted `draw_fragment`: (params, memory, frames, positions, keys) -> (fragment, memory).

    Its noise comes from the trajectories' keys (b,) and the fragment's number.
    """

    def step(
      params: Any, memory: Memory, frames: jax.Array, positions: jax.Array, keys: jax.Array
    ) -> tuple[jax.Array, Memory]:
      keys = jax.vmap(jax.random.fold_in, (0, None))(keys, memory.count)
      pairs = jax.vmap(jax.random.split)(keys)
      shape = memory.fragment.shape[1:]
      x_T = jax.vmap(lambda key: jax.random.normal(key, shape))(pairs[:, 0])
      x_T = partitioning.split_batch(x_T)
      return self.draw_fragment(params, memory, frames, positions, x_T, pairs[:, 1])

    return jax.jit(step)

  def run(
    self, params: Any, frames: jax.Array, positions: jax.Array, total: int, keys: jax.Array
  ) -> Iterator[np.ndarray]:
    """Draws videos of `total` frames, yielding frames (b, n, h, w, c) as soon as they are final.

    A trajectory depends only on its own row of the arguments.

    Args:
      params: from `sampling_params`.
      frames: (b, k, h, w, c) in [-1, 1], which condition the first fragment.
      positions: (b, k) their positions in the first fragment.
      total: frames of the video, including the given ones.
      keys: (b,) one PRNG key per trajectory.
    """
    b, k, h, w, c = frames.shape
    memory = self.start(params, (b, h, w, self.num_frames * c))
    overlap = jnp.broadcast_to(jnp.arange(k), (b, k))
    last = None
    for window in self.windows(total):
      if last is not None:
        at = window.start - last[1].start
        frames, positions = last[0][:, at : at + k], overlap
      # Every fragment is placed alike, the first too; otherwise two programs would be compiled.
      placed = partitioning.place((memory, frames, positions, keys))
      fragment, memory = self.step(params, *placed)
      # The devices draw this fragment while the host handles the last one.
      if last is not None:
        yield _cut(*last)
      last = fragment, window
    assert last is not None  # every video has a fragment
    yield _cut(*last)


def _cut(fragment: jax.Array, window: Window) -> np.ndarray:
  return shares.whole(fragment)[:, window.first - window.start : window.end - window.start]
