"""--mode=cache: what it writes, who reads it, and what is refused."""

import pathlib
import types
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
import pytest

from data import prepare
from experiments import main
from experiments.setup import checks, frame_stores, latent_caches
from experiments.train import make_cache
from tests.glober import tiny
from videodiff_jax.glober import latents, stages
from videodiff_jax.inputs import clips
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.training import partitioning
from videodiff_jax.training.workdir import write_config

KINDS = {"latents": "autoencoder", "global_features": "generator"}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> ml_collections.ConfigDict:
  config = tiny.config()
  config.data.num_classes = 10
  config.data.update(name="moving_digits", flip=True)
  config.data.dir = str(tmp_path_factory.mktemp("data") / "digits")
  with checks.as_user_error():
    prepare.ensure("moving_digits", config.data.dir, size=tiny.SIDE, num_videos=10)
  return config


@pytest.fixture(scope="module")
def store(config) -> FrameStore:
  return frame_stores.open_store(config, "train")


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory) -> pathlib.Path:
  workdir = tmp_path_factory.mktemp("runs") / "tiny"
  write_config(workdir, config)
  return workdir


@pytest.fixture(scope="module")
def made(config, workdir, store) -> dict[str, pathlib.Path]:
  """Both caches, as the command makes them of the filled networks, on one device."""

  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(make_cache, "load_ema", lambda _, __, stage, ___: trained(stage.name))
    patch.setattr(make_cache.partitioning, "make_mesh", lambda **_: mesh)
    for kind in KINDS:
      make_cache.make(workdir, None, types.SimpleNamespace(cache=kind))
  return {kind: find(config, workdir, store, kind).file for kind in KINDS}


def trained(name: str) -> dict[str, Any]:
  """A stage's filled weights; the KL-VAE's codes are nearly certain, so that draws are alike."""
  state = tiny.state(name)
  params = jax.tree.map(np.array, state.params)
  if name == "kl_vae":
    params["params"]["to_moments"]["bias"][4:] = -30.0
  return {"ema_params": params, "statistics": state.statistics}


def frozen_of(stage: str) -> dict[str, Any]:
  return stages.frozen_networks(stage, {name: trained(name) for name in stages.NAMES})


def find(config, workdir, store, kind: str, change: Callable = lambda x: x) -> Any:
  sampler = frame_stores.clip_sampler(config, "pairs" if kind == "latents" else "keys")
  frozen = jax.tree.map(change, frozen_of(KINDS[kind]))
  return latent_caches.find(config, workdir, KINDS[kind], store, sampler, frozen)


def asking(config, use: str) -> ml_collections.ConfigDict:
  config = config.copy_and_resolve_references()
  config.data.cache = use
  return config


def test_frames_of_targets_come_along_where_they_are_judged(config, workdir, made, store) -> None:
  del made
  assert find(config, workdir, store, "latents").target_frames
  reconstructions = config.copy_and_resolve_references()
  reconstructions.loss.cra.real = "reconstructions"
  assert not find(reconstructions, workdir, store, "latents").target_frames


def test_they_lie_beside_the_store(config, made, store) -> None:
  for kind, file in made.items():
    assert file.parent == pathlib.Path(f"{config.data.dir}.cache")
    assert file.name.startswith(f"{kind}-")
  assert np.load(made["latents"]).shape == (store.num_records, 2, 4, 4, 8)
  starts = clips.count_starts(store, frame_stores.clip_sampler(config, "keys"))
  features = np.load(made["global_features"])
  assert features.shape == (starts.sum(), 2, *tiny.FEATURE[:2], 2 * tiny.FEATURE[2])
  assert np.isfinite(features).all() and features.std(axis=0).min() > 0


def test_batches_carry_what_the_networks_would_make_of_their_frames(
  config, workdir, made, store
) -> None:
  del made
  sampler = frame_stores.clip_sampler(config, "pairs")
  cached = find(config, workdir, store, "latents")
  assert cached.target_frames  # L_cra judges pixels
  plain, short = (
    next(clips.batches(store, sampler, 0, 4, moments=given)) for given in (None, cached)
  )
  networks, frozen = tiny.networks(), frozen_of("autoencoder")
  encode = jax.jit(lambda frames: latents.frame_moments(networks, frozen, frames))
  for which in ("key", "target"):
    frames, found = plain[f"{which}_frames"], short[f"{which}_moments"]
    flat = frames.reshape(-1, *frames.shape[2:])
    expected = encode(flat)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-5)
  np.testing.assert_array_equal(short["target_frames"], plain["target_frames"])


def test_global_features_are_those_of_their_clips(config, workdir, made, store) -> None:
  del made
  sampler = frame_stores.clip_sampler(config, "keys")
  cached = find(config, workdir, store, "global_features")
  plain, short = (
    next(clips.batches(store, sampler, 0, 6, moments=given)) for given in (None, cached)
  )
  networks, frozen = tiny.networks(), frozen_of("generator")
  encode = jax.jit(lambda batch, key: latents.global_feature(networks, frozen, batch, key))
  posterior = encode(plain, jax.random.key(5))
  found = latents.from_moments(short["global_features"])
  np.testing.assert_allclose(found.mean, posterior.mean, atol=1e-4)
  np.testing.assert_allclose(found.logvar, posterior.logvar, atol=1e-4)
  assert np.ptp(found.mean, axis=0).max() > 0.01  # clips differ


def test_other_weights_or_settings_are_refused(config, workdir, made, store) -> None:
  def changed(x: Any) -> np.ndarray:
    x = np.array(x)
    x.flat[0] += 1e-3
    return x

  for kind, file in made.items():
    required, auto = asking(config, "required"), asking(config, "auto")
    assert find(required, workdir, store, kind).file == file
    assert find(asking(config, "none"), workdir, store, kind) is None
    if kind == "latents":
      assert find(auto, workdir, store, kind, changed) is None
    with pytest.raises(checks.UserError, match=rf"--cache={kind} .*refused:\n  .*{kind}-"):
      find(required, workdir, store, kind, changed)
    other = asking(config, "required")
    other.precision = "bfloat16"
    with pytest.raises(checks.UserError, match=f"there is none for stage '{KINDS[kind]}'"):
      find(other, workdir, store, kind)
  other = asking(config, "required")
  other.data.num_keyframes = 2
  # The latents are still of these weights, and the generator can do with them.
  assert find(other, workdir, store, "global_features").kind == "latents"


@pytest.fixture
def begun(monkeypatch) -> Callable[[Any], None]:
  """Lets stages have a checkpoint with this beside it, or none."""

  def begin(meta: dict[str, Any] | None) -> None:
    monkeypatch.setattr(latent_caches, "newest_meta", lambda *_: meta)

  return begin


@pytest.mark.parametrize(
  "meta", [{latent_caches.READ: None}, {"code": "of before it was written down"}]
)
def test_a_stage_that_began_with_frames_goes_on_with_them(
  config, workdir, made, store, begun, caplog, meta
) -> None:
  caplog.set_level("INFO", logger="absl")
  begun(meta)
  for kind, file in made.items():
    caplog.clear()
    assert find(asking(config, "auto"), workdir, store, kind) is None
    assert str(file) in caplog.text and "--config.data.cache=required" in caplog.text
    assert len(caplog.records) == 1
    assert find(asking(config, "required"), workdir, store, kind).file == file


def test_a_stage_goes_on_with_the_cache_it_began_with(config, workdir, made, store, begun) -> None:
  auto = asking(config, "auto")
  assert find(auto, workdir, store, "global_features").kind == "global_features"
  begun({latent_caches.READ: made["latents"].name})  # the better one was made since
  assert find(auto, workdir, store, "global_features").kind == "latents"
  assert find(asking(config, "none"), workdir, store, "global_features") is None
  begun({latent_caches.READ: "latents-gone.npy"})
  with pytest.raises(checks.UserError, match=r"started with latents-gone.*--cache=latents .*=none"):
    find(auto, workdir, store, "global_features")
  begun(None)
  assert find(auto, workdir, store, "global_features").kind == "global_features"


def test_what_is_there_is_not_made_again(config, workdir, made, store, monkeypatch) -> None:
  """config.data.cache = 'make' writes the generator's where it is missing, and only then."""
  written = []
  monkeypatch.setattr(make_cache, "write", lambda *arguments: written.append(arguments[2]))
  ask(asking(config, "make"), workdir, store, "global_features")
  assert written == []
  ask(asking(config, "make"), workdir, store, "latents", changed=True)
  assert written == []
  ask(asking(config, "make"), workdir, store, "global_features", changed=True)
  assert written == ["global_features"]
  assert (
    find(asking(config, "make"), workdir, store, "global_features").file == made["global_features"]
  )
  assert find(asking(config, "make"), workdir, store, "latents").file == made["latents"]


def ask(config, workdir, store, kind: str, changed: bool = False) -> None:
  """Makes what is asked for of these weights or, if `changed`, of some whose cache is missing."""
  sampler = frame_stores.clip_sampler(config, "pairs" if kind == "latents" else "keys")
  frozen = jax.tree.map(lambda x: x + changed, frozen_of(KINDS[kind]))
  make_cache.make_asked(
    config, workdir, KINDS[kind], store, sampler, frozen, partitioning.make_mesh()
  )


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_made_where_that_is_worth_it(
  config, workdir, store, kind, monkeypatch, caplog
) -> None:
  """Each view is read at least twice, and half of the disk suffices."""
  caplog.set_level("INFO", logger="absl")
  written = []
  monkeypatch.setattr(make_cache, "write", lambda *arguments: written.append(arguments[2]))
  config = asking(config, "make_if_worth")
  sampler = frame_stores.clip_sampler(config, "pairs" if kind == "latents" else "keys")
  rows = latent_caches.layout(kind, store, sampler)[1]
  data, settings = config.data, config.train[KINDS[kind]]
  frames = data.num_keyframes + data.num_targets if kind == "latents" else 1
  settings.steps = enough = -(-4 * rows // (frames * settings.batch_size))
  ask(config, workdir, store, kind, changed=True)
  assert written == [kind]
  settings.steps = enough - 1
  ask(config, workdir, store, kind, changed=True)
  assert f"{2 * rows} {kind} would be made for" in caplog.text
  settings.steps = enough
  shape = tiny.FEATURE if kind == "global_features" else (4, 4, 4)
  size = rows * 2 * 2 * np.prod(shape) * 4
  usage = types.SimpleNamespace(free=2 * size - 1)
  monkeypatch.setattr(make_cache.shutil, "disk_usage", lambda _: usage)
  ask(config, workdir, store, kind, changed=True)
  assert "it would take 0.0 of 0.0 GB that are free" in caplog.text
  assert written == [kind]
  usage.free += 1
  ask(config, workdir, store, kind, changed=True)
  assert written == [kind, kind]
  monkeypatch.setattr(make_cache.hosts, "share", lambda folder: folder.is_dir() and False)
  ask(config, workdir, store, kind, changed=True)
  assert "the hosts share no disk beside the store" in caplog.text
  assert written == [kind, kind]


def test_nothing_there(config, tmp_path, store) -> None:
  """Beside a store that nobody may write to, the workdir takes it."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(latent_caches.os, "access", lambda *_: False)
    assert latent_caches.folders(store, tmp_path)[0] == tmp_path / "cache"


def test_wrong_requests_are_told(config, workdir) -> None:
  with pytest.raises(checks.UserError, match="needs --cache=latents or --cache=global_features"):
    make_cache.make(workdir, None, types.SimpleNamespace(cache=None))
  with pytest.raises(
    checks.UserError, match="Choose one of: auto, make, make_if_worth, required, none"
  ):
    checks.check_config(asking(config, "always"))
  other = config.copy_and_resolve_references()
  other.model.unet.channels = 16
  with pytest.raises(checks.UserError, match="holds a run of another configuration"):
    make_cache.make(workdir, other, types.SimpleNamespace(cache="latents"))
  with pytest.raises(checks.UserError, match="'lgcvd' has no --mode=cache"):
    main.mode_function("lgcvd", "cache")
