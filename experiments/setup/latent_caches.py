"""Finds the latent cache that a stage reads in place of frames, if --mode=cache has made one."""

import json
import os
import pathlib
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from experiments.setup.errors import UserError, as_user_error
from videodiff_jax import storage
from videodiff_jax.inputs import clips, latent_cache
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.training import hosts
from videodiff_jax.training.checkpoints import fingerprint
from videodiff_jax.training.workdir import newest_meta

# Key of a checkpoint's metadata: the name of the file its steps read, or None for frames.
READ = "cache"
# Stage -> kinds that it can read, best first.
READ_BY = {"autoencoder": ("latents",), "generator": ("global_features", "latents")}
# Kind -> the networks it is computed with: entries of `frozen`, keys of config.model.
_MADE_BY = {
  "latents": (("kl_vae",), ("kl_vae",)),
  "global_features": (
    ("kl_vae", "autoencoder", "latent_statistics"),
    ("kl_vae", "video_encoder"),
  ),
}


def about(
  config: ml_collections.ConfigDict, kind: str, store: FrameStore, frozen: dict[str, Any]
) -> dict[str, Any]:
  """Returns everything that a cache's values depend on, as JSON."""
  entries, keys = _MADE_BY[kind]
  model, data = json.loads(config.model.to_json()), config.data
  identity = {
    "kind": kind,
    "weights": fingerprint({name: frozen[name] for name in entries}),
    "networks": {key: model[key] for key in keys},
    "precision": config.precision,
    "store": store.fingerprint,
    "split": store.split,
    "mirrored": bool(data.flip),
  }
  if kind == "global_features":
    identity["clips"] = [data.num_frames, data.stride, data.num_keyframes]
  return identity


def folders(store: FrameStore, workdir: pathlib.Path) -> list[pathlib.Path]:
  """Lists the folders that may hold caches.

  New caches go to the first one, which is beside the store if that can be written to.
  """
  beside = store.directory.absolute().with_name(f"{store.directory.name}.cache")
  if storage.is_remote(workdir):  # a cache is mapped into memory, as only files can be
    return [beside]
  places = [beside, workdir / "cache"]
  return places if os.access(beside.parent, os.W_OK) else places[::-1]


def layout(kind: str, store: FrameStore, sampler: clips.ClipSampler) -> tuple[np.ndarray, int]:
  """Returns the row of each video's first frame or clip, and the number of rows."""
  if kind == "latents":
    return np.array([video["first"] for video in store.videos]), store.num_records
  starts = clips.count_starts(store, sampler)
  return np.cumsum(starts) - starts, int(starts.sum())


def look_up(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  kind: str,
  store: FrameStore,
  sampler: clips.ClipSampler,
  frozen: dict[str, Any],
) -> latent_cache.Moments | None:
  """Finds the finished cache of a kind that these networks made from this store; None if missing.

  Raises:
    UserError: the file is damaged, or does not match its name.
  """
  if not _files(kind, store, workdir):
    return None  # Weights take a while to hash, and all hosts do it together.
  wanted = about(config, kind, store, frozen)

  def find() -> str | None:
    files = [latent_cache.path_of(folder, wanted) for folder in folders(store, workdir)]
    return next((str(file) for file in files if file.is_file()), None)

  found = hosts.decide(find)
  if found is None:
    return None
  file = pathlib.Path(found)
  with as_user_error():
    hosts.everywhere(lambda: latent_cache.check(file, wanted))
  first, _ = layout(kind, store, sampler)
  on_pixels = config.model.discriminator.on == "pixels" and config.loss.cra.real == "frames"
  judged = bool(config.loss.lambda_cra) and on_pixels
  return latent_cache.Moments(kind, file, first, target_frames=judged)


def find(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  stage: str,
  store: FrameStore,
  sampler: clips.ClipSampler,
  frozen: dict[str, Any],
) -> latent_cache.Moments | None:
  """Opens the cache that a stage reads, as config.data.cache asks; None if it reads frames.

  With 'auto', 'make' and 'make_if_worth' a stage starts with the best available cache and keeps it
  when it resumes. Latents sampled from cached moments differ from those of frames, so that
  switching would change the run half-way.

  Raises:
    UserError: as `look_up`; config.data.cache is 'required', but there is no cache; or the cache
      that the stage started with is gone.
  """
  kinds = READ_BY.get(stage, ())
  if not kinds or config.data.cache == "none":
    return None
  lasting = config.data.cache in ("auto", "make", "make_if_worth")
  begun = newest_meta(workdir, stage) if lasting else None
  others = [file for kind in kinds for file in _files(kind, store, workdir)]
  there = "".join(f"\n  {file}" for file in others)
  if begun is not None and begun.get(READ) is None:
    if others:
      logging.info(
        "Stage %s goes on with frames, as it started; --config.data.cache=required would read one "
        "of:%s", stage, there,
      )  # fmt: skip
    return None
  for kind in kinds:
    found = look_up(config, workdir, kind, store, sampler, frozen)
    if found is not None and (begun is None or found.file.name == begun[READ]):
      how = "reads" if begun is None else "goes on with"
      logging.info("Stage %s %s %s.", stage, how, found.file)
      return found
  if begun is not None:
    kind = begun[READ].split("-")[0]
    raise UserError(
      f"Stage {stage!r} started with {begun[READ]}, which is missing or was made with other "
      f"weights or settings. Make it again (--mode=cache --cache={kind} --workdir={workdir}), or "
      "read frames: --config.data.cache=none."
    )
  if config.data.cache == "required":
    raise UserError(
      f"config.data.cache is 'required', but there is none for stage {stage!r}. Make it: "
      f"--mode=cache --cache={kinds[0]} --workdir={workdir}."
      + (f" Caches of other weights or settings are refused:{there}" if others else "")
    )
  if others:
    logging.info(
      "Stage %s reads frames. Caches of other weights or settings are refused:%s", stage, there
    )
  return None


def _files(kind: str, store: FrameStore, workdir: pathlib.Path) -> list[str]:
  def find() -> list[str]:
    there = [sorted(folder.glob(f"{kind}-*.npy")) for folder in folders(store, workdir)]
    return [str(file) for files in there for file in files]

  return hosts.decide(find)
