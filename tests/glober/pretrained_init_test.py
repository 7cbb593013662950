"""config.init: pretrained weights in the stages' first states."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from configs import glober_sky
from experiments.setup import checks, systems
from experiments.tools import convert
from experiments.train import plan
from tests.configs.names import load
from tests.glober import tiny
from tests.pretrained import sd_names
from videodiff_jax.glober import stages
from videodiff_jax.pretrained import architectures
from videodiff_jax.training import loop, partitioning
from videodiff_jax.training.state import TrainState
from videodiff_jax.training.workdir import load_ema

WIDTH = 128  # of the UNet: kernels large enough to be split
KL_VAE = {"channels": 4, "multipliers": (1, 1), "blocks": 1, "latent": 4, "image": 1}
UNET = {"channels": WIDTH, "multipliers": (1,), "blocks": 1, "rates": (), "context": 8}
DIT = {"width": 16, "depth": 2, "patch": 1, "side": 2}


def config(**init: pathlib.Path | str) -> ml_collections.ConfigDict:
  settings = tiny.config()
  settings.model.latent_scale = 0.0
  settings.model.kl_vae.mid_attention = True
  settings.model.unet.channels = WIDTH
  settings.init.update({name: str(value) for name, value in init.items()})
  return settings


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
  """CompVis checkpoints in half precision, a DiT of 3 classes, a UNet of latents of 3."""
  folder = tmp_path_factory.mktemp("files")
  vae = sd_names.filled(sd_names.kl_vae(**KL_VAE), dtype=np.float16)
  unet = sd_names.filled(sd_names.unet(**UNET), dtype=np.float16)
  contents = {
    "vae": vae,
    "sd": {f"first_stage_model.{name}": value for name, value in vae.items()}
    | {f"model.diffusion_model.{name}": value for name, value in unet.items()}
    | sd_names.schedule(),
    "dit": sd_names.filled(sd_names.dit(**DIT, classes=3)),
    "three": sd_names.filled(sd_names.unet(**UNET, latent=3)),
  }
  for name, content in contents.items():
    save_file(content, folder / f"{name}.safetensors")
  return {name: folder / f"{name}.safetensors" for name in contents}


def flat(tree: Any) -> dict[str, np.ndarray]:
  return {
    path: np.asarray(value) for path, value in traverse_util.flatten_dict(tree, sep=".").items()
  }


@functools.cache
def fresh(name: str, scanned: bool = False) -> TrainState:
  """A drawn state of a stage; what is given changes none of its shapes."""
  settings = config()
  settings.model.dit.scan_blocks = scanned
  return tiny.filled(settings, name)


def begun(settings: ml_collections.ConfigDict, name: str) -> tuple[TrainState, TrainState]:
  """A fresh state on eight devices, before and after the given weights are put into it."""
  before = fresh(name, name == "generator" and settings.model.dit.scan_blocks)
  mesh = partitioning.make_mesh(2, 4)
  params = jax.tree.map(jax.device_put, before.params, partitioning.shardings(before.params, mesh))
  # The average is a copy, as `state.create` makes it.
  ema_params = jax.tree.map(lambda x: x.copy(), params)
  placed = before.replace(params=params, ema_params=ema_params)
  return before, stages.make_stage(settings, name).pretrained(placed)


def test_the_unet_begins_with_the_given_weights(files) -> None:
  """Straight to their shards; encoder and control are drawn, and both copies are the same."""
  before, after = begun(config(unet=files["sd"]), "autoencoder")
  kernel = after.params["params"]["unet"]["middle_res_0"]["conv_in"]["kernel"]
  assert kernel.dtype == np.float32
  assert kernel.addressable_shards[0].data.size == kernel.size // 4
  source = sd_names.filled(sd_names.unet(**UNET), dtype=np.float16)
  np.testing.assert_array_equal(
    kernel, source["middle_block.0.in_layers.2.weight"].transpose(2, 3, 1, 0).astype(np.float32)
  )
  drawn, params, ema = flat(before.params), flat(after.params), flat(after.ema_params)
  assert drawn.keys() == params.keys() == ema.keys()
  for path, value in params.items():
    np.testing.assert_array_equal(value, ema[path])
    assert np.array_equal(value, drawn[path]) == (not path.startswith("params.unet.")), path
  jax.tree.map(np.testing.assert_array_equal, after.opt_state, before.opt_state)


def test_our_folder_and_the_file_itself_give_the_same(files, tmp_path) -> None:
  convert.convert("sd-v1", files["sd"], config(), tmp_path / "out")
  states = [begun(config(unet=path), "autoencoder")[1] for path in (files["sd"], tmp_path / "out")]
  jax.tree.map(np.testing.assert_array_equal, states[0].params, states[1].params)


def test_what_does_not_fit_is_drawn_anew(files, caplog) -> None:
  """A UNet of other latents, and a DiT of other classes, channels and without text."""
  caplog.set_level("INFO", logger="absl")
  for name, stage, file, anew in (
    ("unet", "autoencoder", "three", {"unet.down_0_conv.kernel", "unet.conv_out.kernel",
                                      "unet.conv_out.bias"}),
    ("generator", "generator", "dit", {"label_embed.embedding", "final_out.kernel",
                                       "final_out.bias", "token_embed.kernel", "token_embed.bias"}),
  ):  # fmt: skip
    before, after = begun(config(**{name: files[file]}), stage)
    drawn, params = flat(before.params["params"]), flat(after.params["params"])
    kept = {path for path, value in params.items() if np.array_equal(value, drawn[path])}
    at = "unet." if name == "unet" else ""
    assert {path for path in kept if path.startswith(at)} == anew
    assert f"config.init.{name}: " in caplog.text and "reinitialised: " in caplog.text


def test_a_dit_s_blocks_are_stacked_where_they_are_scanned(files) -> None:
  settings = config(generator=files["dit"])
  unrolled = begun(settings, "generator")[1].params["params"]
  settings.model.dit.scan_blocks = True
  blocks = begun(settings, "generator")[1].params["params"]["blocks"]
  for i in range(2):
    jax.tree.map(
      lambda stacked, one, i=i: np.testing.assert_array_equal(stacked[i], one),
      blocks, unrolled[f"block_{i}"],
    )  # fmt: skip


def test_a_given_kl_vae_is_a_stage_without_steps(files, tmp_path) -> None:
  """It is kept in the workdir: nobody asks for the file again."""
  settings, mesh = config(kl_vae=files["sd"]), partitioning.make_mesh()
  stage = stages.make_stage(settings, "kl_vae")
  run = loop.Run(
    folder=tmp_path / "kl_vae", mesh=mesh, seed=0, steps=4, batch_size=8, log_every=1,
    checkpoint_every=1, preview_every=1, keep=1, meta={},
  )  # fmt: skip

  def nothing(*_: object) -> Any:
    raise AssertionError("nothing is trained")

  for _ in range(2):
    assert loop.train(stage, run, {}, nothing, {}, nothing)
  settings.init.kl_vae = str(tmp_path / "gone")
  ema = load_ema(settings, tmp_path, stages.make_stage(settings, "kl_vae"), mesh)
  source = sd_names.filled(sd_names.kl_vae(**KL_VAE), dtype=np.float16)
  kernel = source["decoder.mid.attn_1.proj_out.weight"][:, :, 0, 0].T
  out = ema["ema_params"]["params"]["decoder"]["middle_attention"]["out"]["kernel"]
  np.testing.assert_array_equal(out, kernel.astype(np.float32))
  assert ema["statistics"] == {}
  assert plan.steps_of(settings, "kl_vae") == plan.flops_between(settings, "kl_vae", 0, 9) == 0


def test_latents_of_stable_diffusion_are_scaled_by_its_constant(files) -> None:
  settings = config(kl_vae=files["vae"], unet=files["sd"])
  settings.model.latent_scale = architectures.SD_LATENT_SCALE
  stage = stages.make_stage(settings, "autoencoder")
  statistics = jax.jit(lambda key: stage.init(key).statistics)(jax.random.key(0))
  assert stage.measure is None
  np.testing.assert_array_equal(statistics["latents"]["mean"], np.zeros(4))
  np.testing.assert_allclose(statistics["latents"]["std"], np.full(4, 1 / 0.18215), rtol=1e-6)


def test_latents_of_a_given_kl_vae_are_measured_unless_told(files, caplog) -> None:
  """What the published commands do with --config.init.kl_vae alone; and it is said."""
  caplog.set_level("INFO", logger="absl")
  settings = config(kl_vae=files["vae"])
  settings.model.latent_scale = glober_sky.get_config().model.latent_scale
  assert stages.make_stage(settings, "autoencoder").measure is not None
  fresh_vae = jax.eval_shape(stages.make_stage(settings, "kl_vae").init, jax.random.key(0))
  fresh_vae = fresh_vae.replace(
    ema_params=jax.tree.map(lambda x: jnp.zeros(x.shape), fresh_vae.ema_params)
  )
  stages.make_stage(settings, "kl_vae").pretrained(fresh_vae)
  assert "latents are multiplied by 1 / std, measured" in caplog.text


@pytest.mark.parametrize("name", ["glober_sky", "glober_taichi", "glober_ucf101:128px"])
def test_a_scale_of_other_latents_is_refused(name: str) -> None:
  """Before anything is compiled: with a KL-VAE of our own, or of another kind than its own."""
  settings = load(name)
  systems.of(settings).check_pretrained(settings, stages.NAMES)  # measured
  settings.model.latent_scale = architectures.SD_LATENT_SCALE
  with pytest.raises(ValueError, match=r"latent_scale is 0\.18215, but .* set the key to 0 .*init"):
    systems.of(settings).check_pretrained(settings, stages.NAMES)
  systems.of(settings).check_pretrained(settings, ("generator",))  # a run that has begun with it
  settings.init.kl_vae = "nowhere"
  expected = "config.init.kl_vae: No file" if name == "glober_sky" else "describes another: set"
  with pytest.raises((ValueError, FileNotFoundError), match=expected):
    systems.of(settings).check_pretrained(settings, stages.NAMES)


@pytest.mark.parametrize(
  ("init", "stage", "message"),
  [
    ({"kl_vae": "nowhere"}, "kl_vae", r"config\.init\.kl_vae: No file or folder nowhere"),
    (
      {"kl_vae": "dit"},
      "kl_vae",
      r"config\.init\.kl_vae: .*KL-VAE .*config\.init\.allow",
    ),
    ({"unet": "vae"}, "autoencoder", "holds no UNet"),
    ({"generator": "sd"}, "generator", "holds no DiT"),
  ],
)
def test_a_wrong_file_is_told(files, init, stage: str, message: str) -> None:
  settings = config(**{name: files.get(value, value) for name, value in init.items()})
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    systems.of(settings).check_pretrained(settings, stages.NAMES)
  others = [name for name in stages.NAMES if name != stage]
  systems.of(settings).check_pretrained(settings, others)  # begun already: not asked for


def test_weights_of_another_size_are_told_and_may_be_allowed(files) -> None:
  settings = config(unet=files["sd"])
  settings.model.unet.context_dim = 7
  settings.model.unet.channels = 64
  with pytest.raises(ValueError, match=r"UNet in .*sd\.safetensors has another configuration"):
    systems.of(settings).check_pretrained(settings, stages.NAMES)
  settings = config(unet=files["sd"])
  settings.model.unet.context_dim = 7
  with pytest.raises(ValueError, match=r"cross_attention\.key\.kernel is \(7, 128\)"):
    systems.of(settings).check_pretrained(settings, stages.NAMES)
  settings.init.allow = "nothing,*.cross_attention.*"
  systems.of(settings).check_pretrained(settings, stages.NAMES)
  checks.check_config(settings)


def test_a_given_kl_vae_is_whole(files, tmp_path) -> None:
  """What it lacks nobody would train."""
  state = sd_names.filled(sd_names.kl_vae(**KL_VAE))
  del state["quant_conv.bias"]
  save_file(state, tmp_path / "vae.safetensors")
  settings = config(kl_vae=tmp_path / "vae.safetensors", allow="*")
  with pytest.raises(ValueError, match=r"lacks to_moments\.bias, which nothing trains"):
    systems.of(settings).check_pretrained(settings, stages.NAMES)


def test_a_run_is_planned_with_weights_that_are_given() -> None:
  """From its JSON, as a workdir keeps it; the file is not looked at."""
  settings = config(kl_vae="nowhere", unet="nowhere")
  trained = plan.stage_figures(config(), "kl_vae")
  figures = plan.stage_figures(settings, "kl_vae")
  assert figures.parameters == trained.parameters
  assert figures.flops_per_step == 0 < trained.flops_per_step
  assert figures.state_bytes < trained.state_bytes / 3
