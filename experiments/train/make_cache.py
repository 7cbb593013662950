"""--mode=cache: encodes the training split once with frozen networks, beside the store.

The weights come from a workdir, so this is a mode of the run rather than of data.prepare, which
knows no networks.
"""

import concurrent.futures
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags, logging
from jax.sharding import Mesh

from experiments.setup import checks, frame_stores, latent_caches
from videodiff_jax import shares
from videodiff_jax.glober import latents, stages
from videodiff_jax.glober.networks import Networks, build
from videodiff_jax.inputs import clips, latent_cache
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.training import hosts, partitioning
from videodiff_jax.training.workdir import load_ema, read_config

_ROWS = 32  # per call and device: frames for latents, clips for global features
_FOR = {"latents": "autoencoder", "global_features": "generator"}

# (frozen networks, batch, key, the number of each host's first row) -> moments of the batch
Encode = Callable[[Any, dict[str, jax.Array], jax.Array, np.ndarray], jax.Array]


def make(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None, options: flags.FlagValues
) -> None:
  """Makes the cache that --cache names, or goes on where a killed call stopped.

  Raises:
    UserError: --cache is missing, the configuration is not the workdir's, or the disk is too full.
    CheckpointError: the workdir has not trained the networks that the cache needs.
  """
  kind = options.cache
  if kind is None:
    raise checks.UserError(f"--mode=cache needs --cache={' or --cache='.join(latent_cache.KINDS)}.")
  saved = read_config(workdir)
  if config is None:
    config = saved
  checks.check_same_run(saved, config, workdir)
  store = frame_stores.open_store(config, "train")
  checks.check_store(config, store)
  mesh, stage = partitioning.make_mesh(), _FOR[kind]
  below = stages.NAMES[: stages.NAMES.index(stage)]
  ema = {n: load_ema(config, workdir, stages.make_stage(config, n), mesh) for n in below}
  frozen = stages.frozen_networks(stage, ema)
  sampler = frame_stores.clip_sampler(config, "keys")
  write(config, workdir, kind, store, sampler, frozen, mesh)


def make_missing(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  store: FrameStore,
  sampler: clips.ClipSampler,
  frozen: dict[str, Any],
  mesh: Mesh,
) -> None:
  """Makes the global features that the generator's stage will read, unless they exist.

  This is what config.data.cache = 'make' asks for. The arguments are those of `write`.
  """
  kind = "global_features"
  if latent_caches.look_up(config, workdir, kind, store, sampler, frozen) is None:
    write(config, workdir, kind, store, sampler, frozen, mesh)


def write(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  kind: str,
  store: FrameStore,
  sampler: clips.ClipSampler,
  frozen: dict[str, Any],
  mesh: Mesh,
) -> pathlib.Path:
  """Computes a store's cache of a kind, writes it, and returns its file."""
  networks, about = build(config), latent_caches.about(config, kind, store, frozen)
  file = latent_cache.path_of(latent_caches.folders(store, workdir)[0], about)
  _, rows = latent_caches.layout(kind, store, sampler)
  # The stored precision loses nothing: float16 has three bits more than bfloat16, and its range
  # suffices for these values.
  dtype = np.dtype(np.float32 if config.precision == "float32" else np.float16)
  shape = networks.latent_shape if kind == "latents" else networks.feature_shape
  views = (False, True) if config.data.flip else (False,)
  with concurrent.futures.ThreadPoolExecutor(config.data.threads) as pool, jax.set_mesh(mesh):
    if kind == "latents":
      examples, encode = _frames(store), _encode_frames(networks)
    else:
      latents = latent_caches.look_up(config, workdir, "latents", store, sampler, frozen)
      examples, encode = _clips(store, sampler, latents), _encode_clips(networks)

    def compute(chunk: np.ndarray) -> np.ndarray | jax.Array:
      """Encodes the views of a chunk's rows, as stored and mirrored: (chunk, views, h, w, 2 c)."""
      out = []
      mine = chunk[partitioning.local_rows(mesh, len(chunk))]
      # Each host's rows have a key of their own, so that their noise is one host's.
      firsts = chunk[:: len(chunk) // jax.process_count()].astype(np.uint32)
      for view in views:
        read = list(pool.map(examples, mine, [view] * len(mine)))
        batch = {name: np.stack([example[name] for example in read]) for name in read[0]}
        key = jax.random.key(int(view))
        out.append(encode(frozen, partitioning.put_batch(batch, mesh), key, firsts))
      stacked = jnp.stack(out, axis=1).astype(dtype)
      return shares.whole(stacked) if mesh.is_multi_process else stacked

    size = (rows, len(views), *shape[:2], 2 * shape[2])
    chunk = _ROWS * mesh.devices.size
    with checks.as_user_error():
      hosts.lead(
        lambda call: latent_cache.write(
          file, about, size, dtype, chunk, lambda numbers: call(numbers.tolist())
        ),
        lambda numbers: compute(np.array(numbers)),
      )
  logging.info("%s of %d %s: %s", kind, rows, "frames" if kind == "latents" else "clips", file)
  return file


def _frames(store: FrameStore) -> Callable[[int, bool], dict[str, np.ndarray]]:
  def read(row: int, flip: bool) -> dict[str, np.ndarray]:
    frame = store.read_records([row])[0][-1]
    return {"frames": frame[:, ::-1] if flip else frame}

  return read


def _clips(
  store: FrameStore, sampler: clips.ClipSampler, latents: latent_cache.Moments | None
) -> Callable[[int, bool], dict[str, np.ndarray]]:
  first, _ = latent_caches.layout("global_features", store, sampler)

  def read(row: int, flip: bool) -> dict[str, np.ndarray]:
    # Takes the last of equal entries: the others belong to videos too short for a clip.
    video = int(np.searchsorted(first, row, side="right")) - 1
    example = clips.read_clip(store, sampler, video, int(row - first[video]), flip, latents)
    return {name: value for name, value in example.items() if name.startswith("key_")}

  return read


def _encode_frames(networks: Networks) -> Encode:
  @jax.jit
  def encode(
    frozen: Any, batch: dict[str, jax.Array], key: jax.Array, firsts: jax.Array
  ) -> jax.Array:
    del key, firsts
    return latents.frame_moments(networks, partitioning.gather(frozen), batch["frames"])

  return encode


def _encode_clips(networks: Networks) -> Encode:
  """Encodes each clip from latents sampled once; without the cache, every step resamples them."""

  @jax.jit
  def encode(
    frozen: Any, batch: dict[str, jax.Array], key: jax.Array, firsts: jax.Array
  ) -> jax.Array:
    whole = partitioning.gather(frozen)

    def moments(batch: dict[str, jax.Array], first: jax.Array) -> jax.Array:
      of_rows = jax.random.fold_in(key, first)
      return latents.to_moments(latents.global_feature(networks, whole, batch, of_rows))

    if len(firsts) == 1:
      return moments(batch, firsts[0])
    by_host = jax.tree.map(lambda x: x.reshape(len(firsts), -1, *x.shape[1:]), batch)
    found = jax.vmap(moments)(by_host, firsts)
    return found.reshape(-1, *found.shape[2:])

  return encode
