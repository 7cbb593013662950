"""--mode=train: trains the stages of a configuration in order, each from where it stopped."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections
import numpy as np
from jax.sharding import Mesh

from data import prepare
from experiments.measures import digits
from experiments.setup import checks, frame_stores, latent_caches, needs, systems, texts
from experiments.train import make_cache, start_table
from experiments.workdirs import provenance
from videodiff_jax import locks
from videodiff_jax.inputs import clips, video_io
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.text.embeddings import TextEncoder
from videodiff_jax.training import curves, hosts, loop, partitioning, periodic, validation
from videodiff_jax.training.workdir import (
  LOCK,
  UNFINISHED_CONFIG,
  holds_run,
  load_ema,
  read_config,
  set_aside_damaged,
  steps_done,
  write_config,
)

_PREVIEW_CLIPS = 4


def train(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  only: str | None,
  after: Sequence[str] = (),
) -> bool:
  """Trains all stages of `config.stages`, or one.

  Args:
    config: validated configuration.
    workdir: folder of the run; receives config.json and a folder for each stage. Finished stages
      are skipped, unfinished ones resumed.
    only: name of a stage, or None for all in order.
    after: modes that follow. The store is checked for the clips that they need before training.

  Returns:
    True when every stage asked for is finished; False when SIGTERM ended the run early.
  """
  mesh = partitioning.make_mesh(config.mesh.data, config.mesh.fsdp)
  expected = expected_curves(config)
  hosts.decide(lambda: check_workdir(config, workdir))
  unborn = [name for name in config.stages if steps_done(workdir, name) is None]
  if only and (first := unborn[:1]) and config.stages.index(first[0]) < config.stages.index(only):
    raise checks.UserError(
      f"--stage={only} needs the networks of {first[0]}, which {workdir} does not have: train it "
      f"first (--stage={first[0]}), or omit --stage to train all in order."
    )
  with checks.as_user_error():
    hosts.everywhere(lambda: systems.of(config).check_pretrained(config, unborn))
  encoder = texts.encoder_of(config)
  store, held_out = open_stores(config, after)
  start_table.show(config, workdir, mesh, store, only)
  with claimed(config, workdir):
    return _train(config, workdir, only, mesh, store, held_out, encoder, expected)


def _train(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  only: str | None,
  mesh: Mesh,
  store: FrameStore,
  held_out: FrameStore,
  encoder: TextEncoder | None,
  expected: dict[str, curves.Expected],
) -> bool:
  text = texts.prepare(config, workdir, mesh, encoder, store, held_out)
  for name in config.stages:
    if only in (None, name):
      set_aside_damaged(workdir, name)
  ema: dict[str, dict[str, Any]] = {} if text is None else {"text": {"null": text.null}}
  for name in config.stages:
    wanted = only in (None, name)
    against = expected.get(name)
    if wanted and not _train_stage(
      config, workdir, name, mesh, store, held_out, ema, text, against
    ):
      return False
    if only == name:
      return True
    stage = systems.of(config).stages.make_stage(config, name)
    ema[name] = load_ema(config, workdir, stage, mesh)
  return True


def open_stores(
  config: ml_collections.ConfigDict, after: Sequence[str]
) -> tuple[FrameStore, FrameStore]:
  """Opens both splits after checking that they hold everything the run takes from its store.

  Raises:
    UserError: the store does not match the configuration, or its videos are too short or too few
      for the training and for the modes `after` it.
  """
  data, system = config.data, systems.of(config)
  wanted = needs.of(config, system, after)
  if not data.dir:  # a set that is made here can be checked before it is made
    with checks.as_user_error():
      made = prepare.planned(data.name, **frame_stores.store_options(config))
    needs.check(wanted, made, f"data set {data.name}")
  stores = {split: frame_stores.open_store(config, split) for split in ("train", "test")}
  for split in {need.split for need in wanted} - stores.keys():
    stores[split] = frame_stores.open_store(config, split)

  def look() -> None:
    checks.check_store(config, stores["train"])
    videos = {split: store.videos for split, store in stores.items()}
    needs.check(wanted, videos, f"store {stores['train'].directory}")
    if {"evaluate", "sweep"} & {*after} and config.evaluate.digits:
      digits.check(stores["train"])
    for split in ("train", "test") if texts.given_by_videos(config) else ():
      texts.captions(config, stores[split])

  hosts.everywhere(look)
  return stores["train"], stores["test"]


@contextlib.contextmanager
def claimed(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Iterator[None]:
  """Locks a workdir so that only this run trains there; the first host holds the lock.

  Writes config.json, or checks that the existing one agrees; steps, mesh and logging may differ.
  """
  stack = contextlib.ExitStack()

  def claim() -> None:
    check_workdir(config, workdir)
    stack.enter_context(locks.hold(workdir / LOCK, f"trains in {workdir}"))
    write_config(workdir, config)

  def see() -> None:
    if not (workdir / "config.json").is_file():
      raise checks.UserError(
        f"{workdir} on this host does not hold the config.json that the first host wrote: give a "
        "--workdir on a disk that all hosts share."
      )

  with stack:
    hosts.decide(claim)
    hosts.everywhere(see)
    yield


def check_workdir(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Raises UserError if the folder belongs to another run or to no run; writes nothing."""
  if holds_run(workdir):
    checks.check_same_run(read_config(workdir), config, workdir)
  elif workdir.is_dir() and {file.name for file in workdir.iterdir()} - {UNFINISHED_CONFIG, LOCK}:
    raise checks.UserError(
      f"{workdir} is not empty and not a workdir (no config.json). Choose another --workdir."
    )


def _train_stage(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  name: str,
  mesh: Mesh,
  store: FrameStore,
  held_out: FrameStore,
  ema: dict[str, dict[str, Any]],
  text: texts.Texts | None,
  expected: curves.Expected | None,
) -> bool:
  settings = config.train[name]
  system = systems.of(config)
  content, other = system.contents[name]
  sampler = frame_stores.clip_sampler(config, content, **other)
  frozen = system.stages.frozen_networks(name, ema)
  # A finished stage reads nothing, so the cache that it read may be gone.
  done = steps_done(workdir, name)
  finished = (done or 0) >= settings.steps
  if done is None:
    make_cache.make_asked(config, workdir, name, store, sampler, frozen, mesh)
  moments = None if finished else latent_caches.find(config, workdir, name, store, sampler, frozen)
  run = loop.Run(
    folder=workdir / name,
    mesh=mesh,
    seed=config.seed,
    steps=settings.steps,
    batch_size=settings.batch_size,
    log_every=settings.log_every,
    checkpoint_every=settings.checkpoint_every,
    preview_every=settings.preview_every,
    keep=settings.keep,
    checksums=config.checksums,
    trace=periodic.Trace(**config.profile),
    meta={
      "config": json.loads(config.to_json()),
      "code": provenance.code_version(),
      "devices": checks.local_devices(),
      latent_caches.READ: moments and moments.file.name,
    },
  )

  rows = partitioning.local_rows(mesh, settings.batch_size)

  def batches(start_examples: int) -> Iterator[dict[str, np.ndarray]]:
    stream = clips.batches(
      store,
      sampler,
      config.seed,
      settings.batch_size,
      start_examples,
      rows,
      num_threads=config.data.threads,
      moments=moments,
    )
    return stream if text is None else (text.add_to(batch, "train") for batch in stream)

  size, count = validation.sizes(mesh)

  def read_held_out() -> list[dict[str, np.ndarray]]:
    stream = clips.batches(
      held_out,
      dataclasses.replace(sampler, flip=False),
      validation.SEED,
      size,
      rows=partitioning.local_rows(mesh, size),
      num_threads=config.data.threads,
    )
    read = [next(stream) for _ in range(count)]
    return read if text is None else [text.add_to(batch, "test") for batch in read]

  frames, videos = clips.shown_clips(
    held_out, frame_stores.clip_sampler(config, "clip"), _PREVIEW_CLIPS, config.seed
  )
  labels = np.array([held_out.videos[video]["label"] for video in videos], np.int32)
  shown_batch = {"frames": frames, "label": labels}
  if text is not None:
    shown_batch = text.add_to(shown_batch | {"video": videos}, "test")
  previews = _Previews(workdir / name / "previews")
  return loop.train(
    system.stages.make_stage(config, name),
    run,
    frozen,
    batches,
    shown_batch,
    previews.write,
    validation.Validation(settings.validate_every, read_held_out, expected)
    if settings.validate_every
    else None,
    previews.has,
  )


def expected_curves(config: ml_collections.ConfigDict) -> dict[str, curves.Expected]:
  """Reads config.expected: stage -> the curve that the stage is compared with.

  Raises:
    UserError: the file has no curve for any stage of the run that validates.
  """
  if not config.expected:
    return {}
  with checks.as_user_error():
    found = hosts.everywhere(lambda: curves.read(config.expected))
  if not any(name in found and config.train[name].validate_every for name in config.stages):
    raise checks.UserError(
      f"config.expected: {config.expected} has curves of {', '.join(found)}, but this run "
      f"validates none of these stages. Its own are {', '.join(config.stages)}: set "
      "config.train.<stage>.validate_every, or give curves of one of them."
    )
  return found


class _Previews:
  """Writes each preview as STEP.png, a strip, and STEP.gif."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder

  def write(self, step: int, videos: dict[str, np.ndarray]) -> None:
    self._folder.mkdir(parents=True, exist_ok=True)
    count = len(next(iter(videos.values())))
    rows = {f"{name} {i}": video[i] for i in range(count) for name, video in videos.items()}
    strip, gif = self._files(step)
    video_io.write_strip(strip, rows)
    video_io.write_gif(gif, video_io.mosaic(videos.values()))

  def has(self, step: int) -> bool:
    return all(file.is_file() for file in self._files(step))

  def _files(self, step: int) -> list[pathlib.Path]:
    return [self._folder / f"{step:07d}.{kind}" for kind in ("png", "gif")]
