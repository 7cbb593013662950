"""--mode=cache: encodes the training split once with frozen networks, beside the store.

The weights come from a workdir, so this is a mode of the run rather than of data.prepare, which
knows no networks.
"""

import concurrent.futures
import math
import pathlib
import shutil
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
  mesh, stage = partitioning.mesh_after(config.mesh.fsdp), _FOR[kind]
  below = stages.NAMES[: stages.NAMES.index(stage)]
  ema = {n: load_ema(config, workdir, stages.make_stage(config, n), mesh) for n in below}
  frozen = stages.frozen_networks(stage, ema)
  sampler = frame_stores.clip_sampler(config, "keys")
  write(config, workdir, kind, store, sampler, frozen, mesh)


def make_asked(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  stage: str,
  store: FrameStore,
  sampler: clips.ClipSampler,
  frozen: dict[str, Any],
  mesh: Mesh,
) -> None:
  """Makes the cache that a stage will read, if config.data.cache asks for it and it is missing.

  'make' asks for the generator's, 'make_if_worth' for that of any stage, unless `why_not` tells a
  reason or the hosts would not all see it. The other arguments are those of `write`.
  """
  how, kinds = config.data.get("cache"), latent_caches.READ_BY.get(stage, ())
  if not kinds or how not in ("make", "make_if_worth") or (how == "make" and stage != "generator"):
    return
  kind = kinds[0]
  if latent_caches.look_up(config, workdir, kind, store, sampler, frozen) is not None:
    return
  if how == "make_if_worth":
    reason = hosts.decide(lambda: why_not(config, workdir, stage, store, sampler))
    # Each host may have a copy of the store on a disk of its own.
    if reason is None and not hosts.share(latent_caches.folders(store, workdir)[0].parent):
      reason = "the hosts share no disk beside the store"
    if reason is not None:
      logging.info("No cache is made for stage %s: %s.", stage, reason)
      return
  write(config, workdir, kind, store, sampler, frozen, mesh)


def why_not(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  stage: str,
  store: FrameStore,
  sampler: clips.ClipSampler,
) -> str | None:
  """Tells why making the cache of a stage would not be worth its time or room; None if it would."""
  kind, data, settings = latent_caches.READ_BY[stage][0], config.data, config.train[stage]
  size = _size(config, kind, store, sampler)
  encoded = size[0] * size[1]
  each = data.num_keyframes + data.num_targets if kind == "latents" else 1
  read = settings.steps * settings.batch_size * each
  if read < 2 * encoded:
    return f"{encoded} {kind} would be made for {read} to be read"
  folder = latent_caches.folders(store, workdir)[0].parent
  needed, free = math.prod(size) * _dtype(config).itemsize, shutil.disk_usage(folder).free
  if needed > free / 2:
    return f"it would take {needed / 1e9:.1f} of {free / 1e9:.1f} GB that are free in {folder}"
  return None


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
  size, dtype = _size(config, kind, store, sampler), _dtype(config)
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

    chunk = _ROWS * mesh.devices.size
    with checks.as_user_error():
      hosts.lead(
        lambda call: latent_cache.write(
          file, about, size, dtype, chunk, lambda numbers: call(numbers.tolist())
        ),
        lambda numbers: compute(np.array(numbers)),
      )
  logging.info("%s of %d %s: %s", kind, size[0], "frames" if kind == "latents" else "clips", file)
  return file


def _size(
  config: ml_collections.ConfigDict, kind: str, store: FrameStore, sampler: clips.ClipSampler
) -> tuple[int, ...]:
  """Returns the shape (rows, views, h, w, 2 c) of a store's cache."""
  networks = build(config)
  h, w, c = networks.latent_shape if kind == "latents" else networks.feature_shape
  return latent_caches.layout(kind, store, sampler)[1], 1 + bool(config.data.flip), h, w, 2 * c


def _dtype(config: ml_collections.ConfigDict) -> np.dtype:
  # The stored precision loses nothing: float16 has three bits more than bfloat16, and its range
  # suffices for these values.
  return np.dtype(np.float32 if config.precision == "float32" else np.float16)


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
