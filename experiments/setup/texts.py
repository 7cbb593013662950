"""Encodes every video's caption before training starts."""

import dataclasses
import os
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from jax.sharding import Mesh

from experiments.setup.errors import UserError, as_user_error
from videodiff_jax import storage
from videodiff_jax.glober import conditions
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.text import embeddings
from videodiff_jax.training import hosts, partitioning


@dataclasses.dataclass(frozen=True)
class Texts:
  """The text tokens of every video.

  Attributes:
    null: tokens of the empty prompt, (l, d) on every device.
    embeddings: tokens of the captions, by split.
  """

  null: jax.Array
  embeddings: dict[str, embeddings.Embeddings]

  def add_to(self, batch: dict[str, np.ndarray], split: str) -> dict[str, np.ndarray]:
    """Returns a batch, which names its videos, with their tokens as 'text' (b, l, d)."""
    return batch | {"text": self.embeddings[split].of(batch["video"])}


def check(config: ml_collections.ConfigDict) -> None:
  """Raises UserError if text cannot be encoded as the configuration says."""
  if config.condition != "text":
    return
  source, encoder = config.text.source, config.text.encoder
  if source == "prompt" and not config.text.prompt:
    raise UserError("config.text.prompt is empty: write the sentence that describes every video.")
  if source != "prompt" and encoder == "none":
    raise UserError(
      f"config.text.source is {source!r}, which needs a text encoder: give "
      "--config.text.encoder=minilm, or clip with --config.init.text_encoder=PATH."
    )
  if source == "captions" and config.text.tells_sides and config.data.flip:
    raise UserError(
      "Mirrored clips would contradict captions that say left or right: give "
      "--config.data.flip=False, or --config.text.tells_sides=False if no caption does."
    )
  widths = (config.model.unet.context_dim, config.model.dit.context_dim)
  if encoder != "none" and len(set(widths)) > 1:
    raise UserError(
      "UNet and DiT read the same text tokens: config.model.unet.context_dim and "
      f"config.model.dit.context_dim must be equal, not {widths[0]} and {widths[1]}."
    )


def given_by_videos(config: ml_collections.ConfigDict) -> bool:
  """Whether each video has a text of its own, so that sampling takes prompts."""
  return config.get("condition") == "text" and config.text.source != "prompt"


def captions(config: ml_collections.ConfigDict, store: FrameStore) -> list[str]:
  """Returns the caption of each video of a store.

  Raises:
    UserError: the store lacks the captions or classes that the configuration asks for.
  """
  settings, videos = config.text, range(store.num_videos)
  if settings.source == "prompt":
    return [settings.prompt] * store.num_videos
  if settings.source == "class_names":
    if not store.classes:
      raise UserError("config.text.source is 'class_names', but the store has no classes.")
    names = [embeddings.class_prompt(name) for name in store.classes]
    return [names[store.videos[video]["label"]] for video in videos]
  found: list[Any] = [store.extra(video).get("caption") for video in videos]
  if missing := [store.videos[v]["name"] for v in videos if not isinstance(found[v], str)]:
    raise UserError(
      f"config.text.source is 'captions', but {len(missing)} of {store.num_videos} {store.split} "
      f"videos have none, as {missing[0]}. Choose another source, or a store with captions."
    )
  return found


def encoder_of(config: ml_collections.ConfigDict) -> embeddings.TextEncoder | None:
  """Loads the encoder of a run's texts; None if the run encodes no text.

  Raises:
    UserError: the encoder is missing, or its width differs from the networks'.
  """
  if config.get("condition") != "text":
    return None
  if not isinstance(conditions.of_config(config), conditions.Text):
    return None
  return hosts.everywhere(lambda: load(config))


def prepare(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  mesh: Mesh,
  encoder: embeddings.TextEncoder | None,
  *stores: FrameStore,
) -> Texts | None:
  """Encodes the stores' captions once and keeps the tokens beside the store.

  Returns None without an encoder.

  Raises:
    UserError: the encoder is not the one that the workdir was trained with.
  """
  if encoder is None and config.get("condition") == "text":
    logging.info(
      "No text encoder is given: %r becomes %d learned tokens. For CLIP's, give "
      "--config.text.encoder=clip --config.init.text_encoder=PATH.",
      config.text.prompt, config.text.length,
    )  # fmt: skip
  if encoder is None:
    return None

  def encode() -> None:
    kept = embeddings.read(workdir)
    if kept is None:
      embeddings.write(workdir, encoder, config.text.prompt)
    elif kept["fingerprint"] != encoder.fingerprint:
      raise UserError(
        f"{workdir} was trained with another text encoder ({kept['fingerprint']}) than the one "
        f"given now ({encoder.name}, {encoder.fingerprint}). Use another --workdir, or give the "
        "same."
      )
    _embed(config, workdir, encoder, stores)

  hosts.decide(encode)
  # Reads the first host's files, unless each host has the stores on a disk of its own.
  by_split = hosts.everywhere(lambda: _embed(config, workdir, encoder, stores))

  def read_null() -> Any:
    kept = embeddings.read(workdir)
    assert kept is not None  # `encode` has written it
    return kept["null"]

  null = hosts.everywhere(read_null)
  return Texts(jax.device_put(null, partitioning.shardings(null, mesh)), by_split)


def load(config: ml_collections.ConfigDict) -> embeddings.TextEncoder:
  """Loads the configuration's text encoder and checks its width against the networks'."""
  settings = config.text
  with as_user_error():
    encoder = embeddings.load_encoder(
      settings.encoder, settings.length, config.init.text_encoder, settings.vocabulary
    )
  width, expected = encoder.shape[1], config.model.unet.context_dim
  if width != expected:
    raise UserError(
      f"Text encoder {encoder.name!r} gives tokens of width {width}, the networks take {expected}: "
      f"set config.model.unet.context_dim and config.model.dit.context_dim to {width}."
    )
  return encoder


def _embed(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  encoder: embeddings.TextEncoder,
  stores: tuple[FrameStore, ...],
) -> dict[str, embeddings.Embeddings]:
  by_split = {}
  for store in stores:
    beside = store.directory.absolute().with_name(f"{store.directory.name}.text")
    lasting = os.access(beside.parent, os.W_OK) or storage.is_remote(workdir)
    folder = beside if lasting else workdir / "text"
    by_split[store.split] = embeddings.embed(encoder, captions(config, store), folder)
  return by_split
