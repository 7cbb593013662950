"""Opens a configuration's frame stores and samples clips from them."""

from typing import Any

import ml_collections

from data import prepare
from experiments.setup import checks, systems
from videodiff_jax import typed
from videodiff_jax.inputs import clips, store_copy
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.training import hosts


def store_options(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the options that an embedded data set's builder takes."""
  return {"size": config.data.image_size, **systems.of(config).store_options(config)}


def open_store(
  config: ml_collections.ConfigDict, split: str, in_memory: bool | str = "auto"
) -> FrameStore:
  """Opens a split of the store in config.data.dir; if that is '', prepares the embedded set first.

  A store in object storage is copied to config.data.local_dir. `in_memory` as in `FrameStore.open`.
  """
  data = config.data
  options = store_options(config)
  folder = data.dir or "_".join([f"data/stores/{data.name}", *map(str, options.values())])
  if not data.dir:
    with checks.as_user_error():
      hosts.decide(lambda: str(prepare.ensure(data.name, folder, **options)))
  hosts.everywhere(lambda: checks.check_removed(data.name, folder))

  def opened() -> FrameStore:
    place = store_copy.on_disk(typed.path(folder, "config.data.dir"), data.get("local_dir", ""))
    return FrameStore.open(place, split, in_memory)

  store = hosts.everywhere(opened)
  hosts.agree({f"data in {folder}, {split}": store.fingerprint})
  return store


def clip_sampler(
  config: ml_collections.ConfigDict, content: clips.Content, **other: Any
) -> clips.ClipSampler:
  """Makes the configuration's clip sampler, with the content a stage needs.

  `other` replaces settings of the configuration.
  """
  data = config.data
  settings = {
    "num_frames": data.num_frames,
    "stride": data.stride,
    "flip": data.flip,
    "sampling": data.sampling,
    **systems.of(config).clip_settings(config),
  }
  return clips.ClipSampler(content=content, **(settings | other))
