"""The allowed range of every key of every configuration.

`*` stands for any part of a key, so that one line may cover every stage, network or sampler. Where
neither the papers nor mathematics set an upper bound, the bound excludes only values that are
typing errors or exceed any machine. Rules over several keys are in checks.py and the systems.
"""

from collections.abc import Mapping

from experiments.setup.ranges import Choice, Number, Rule, Several, Text, whole
from videodiff_jax.diffusion import guidance, noise, process, samplers, schedules
from videodiff_jax.glober import adversarial, conditions, kl_vae_stage
from videodiff_jax.glober import stages as glober_stages
from videodiff_jax.inputs import clips
from videodiff_jax.lgcvd import conditioning, objective, rollout
from videodiff_jax.lgcvd import stages as lgcvd_stages
from videodiff_jax.metrics import lpips
from videodiff_jax.metrics.protocols import PROTOCOLS
from videodiff_jax.models import attention, lgc_unet
from videodiff_jax.text import embeddings
from videodiff_jax.training import optimizers

_FLAG, _TEXT = Choice((True, False)), Text()
_STEPS = whole("[1, 1e9]", "steps")
_STEPS_OR_NONE = whole("[0, 1e9]", "steps; 0: none")
_COUNT = whole("[1, 1e6]", "videos")
_FRAMES = whole("[1, 10000]", "frames")
_SEED = whole("[0, 4294967295]", "32 bits")
_WIDTH = whole("[1, 65536]", "channels")
_SMALL = whole("[1, 64]")
_WEIGHT = Number("[0, 1e6]", "a loss's weight; 0: off")
_SHARE = Number("[0, 1]", "a probability")
_SCALE = Number("[0, 1000]", "a guidance scale; 1: unguided")
_PRECISIONS = ("float32", "bfloat16")
# Modes that may follow training (main.py has them all).
_AFTER = ("sample", "evaluate", "sweep", "report")

COMMON: Mapping[str, Rule] = {
  "expected": _TEXT,
  "checksums": _FLAG,
  "profile.first_step": _STEPS,
  "profile.num_steps": whole("[0, 10000]", "traced steps; 0: none"),
  "seed": _SEED,
  "precision": Choice(_PRECISIONS),
  "remat": Choice(("none", "blocks")),
  "init.allow": Text(r"[\w.,*?!\[\] /:-]*", "names of tensors, comma-joined, with * and ?"),
  "init.run": _TEXT,
  "mesh.data": whole("[1, 65536]", "devices", also=(-1,)),
  "mesh.fsdp": whole("[1, 65536]", "devices"),
  "mesh.cpu_devices": whole("[1, 256]", "devices made of a host's cores"),
  "data.name": _TEXT,
  "data.dir": _TEXT,
  "data.local_dir": _TEXT,
  "data.image_size": whole("[1, 4096]", "pixels a side"),
  "data.channels": Choice((1, 3)),
  "data.num_frames": whole("[2, 10000]", "frames; a clip has at least 2"),
  "data.stride": whole("[1, 10000]", "stored frames"),
  "data.flip": _FLAG,
  "data.sampling": Choice(clips.SAMPLINGS),
  "data.threads": whole("[1, 256]", "threads"),
  "model.*attention_rates": Several(whole("[1, 4096]", "input's side to map's"), 0, 8),
  "model.*multipliers": Several(_SMALL, 1, 8),
  "model.*blocks": Several(_SMALL, 1, 8, alone=True),
  "model.*channels": _WIDTH,
  "diffusion.schedule.kind": Choice(schedules.KINDS),
  "diffusion.schedule.num_timesteps": whole("[2, 100000]", "timesteps"),
  "diffusion.schedule.beta_*": Number("(0, 1)", "a variance"),
  "diffusion.schedule.max_beta": Number("(0, 1)", "a variance"),
  "diffusion.schedule.precision": Choice(schedules.PRECISIONS),
  "diffusion.*.prediction_type": Choice(process.PREDICTION_TYPES),
  "diffusion.*.loss_weighting": Choice(process.LOSS_WEIGHTINGS),
  "diffusion.*.loss_norm": Choice(process.LOSS_NORMS),
  "diffusion.*.timestep_power": Number("(0, 100]"),
  "train.*.steps": _STEPS,
  "train.*.batch_size": whole("[1, 1e6]", "clips a step over all devices"),
  "train.*.accumulate": whole("[1, 1e6]", "parts of a batch"),
  "train.*.optimizer.learning_rate": Number("(0, 10]"),
  "train.*.optimizer.b?": Number("[0, 1)", "a decay a step"),
  "train.*.optimizer.weight_decay": Number("[0, 100]"),
  "train.*.optimizer.warmup_steps": _STEPS_OR_NONE,
  "train.*.optimizer.decay": Choice(optimizers.DECAYS),
  "train.*.optimizer.clip_norm": Number("[0, 1e6]", "a gradient's norm; 0: not clipped"),
  "train.*.ema.decay": Number("[0, 1)", "a decay a step"),
  "train.*.ema.interval": _STEPS,
  "train.*.ema.copy_until": _STEPS_OR_NONE,
  "train.*.ema.warmup": _FLAG,
  "train.*.log_every": _STEPS,
  "train.*.checkpoint_every": _STEPS,
  "train.*.preview_every": _STEPS,
  "train.*.validate_every": _STEPS_OR_NONE,
  "train.*.keep": whole("[1, 1e6]", "checkpoints"),
  "train.generator.draws_per_clip": whole("[1, 1024]", "draws"),
  "sample.num_videos": _COUNT,
  "sample.*.kind": Choice(samplers.KINDS),
  "sample.*.num_steps": Several(whole("[1, 100000]", "steps"), 1, 100, alone=True),
  "sample.*.grid": Choice(samplers.GRIDS),
  "sample.*.final": Choice(samplers.FINALS),
  "sample.*.eta": Number("[0, 1]", "share of DDPM's noise"),
  "sample.*.clip": _FLAG,
  "sweep.kinds": Several(Choice(samplers.KINDS), 1),
  "sweep.grids": Several(Choice(samplers.GRIDS), 1),
  "sweep.steps": Several(whole("[1, 100000]", "steps"), 1),
  "evaluate.motion": _FLAG,
  "evaluate.digits": _FLAG,
  "ablation.compared": _TEXT,
  "ablation.reference": _TEXT,
  "ablation.seeds": Several(_SEED, 1, 1000),
}

# A system's own lines follow the common ones; the first pattern that a key matches is its rule.
GLOBER: Mapping[str, Rule] = {
  **COMMON,
  "system": Choice(("glober",)),
  "stages": Several(Choice(glober_stages.NAMES), 1),
  "after": Several(Choice((*_AFTER, "reconstruct", "redraw"))),
  "condition": Choice(conditions.CONDITIONS),
  **dict.fromkeys(("init.kl_vae", "init.unet", "init.generator", "init.text_encoder"), _TEXT),
  "text.source": Choice(("prompt", "captions", "class_names")),
  "text.encoder": Choice(("none", *embeddings.ENCODERS)),
  "text.tells_sides": _FLAG,
  "text.length": whole("[1, 4096]", "tokens"),
  **dict.fromkeys(("text.prompt", "text.vocabulary"), _TEXT),
  "data.num_classes": whole("[0, 1e6]", "classes"),
  "data.num_keyframes": _FRAMES,
  "data.num_targets": _FRAMES,
  "data.frame_time": Choice(("index / F", "index / (F - 1)")),
  "data.cache": Choice(("auto", "make", "make_if_worth", "required", "none")),
  "model.latent_scale": Number("[0, 1e6]", "a factor; 0: measured"),
  "model.*.norm_groups": _WIDTH,
  "model.kl_vae.embed_dim": _WIDTH,
  "model.kl_vae.mid_attention": _FLAG,
  "model.video_encoder.temporal_kernel": whole("[1, 9]", "frames"),
  "model.video_encoder.head": Choice(("joint", "split_first")),
  "model.video_encoder.logvar_bias": Number("[-30, 20]", "a log-variance"),
  "model.video_encoder.zero_init": _FLAG,
  "model.frame_control.which": Choice(("all", "down")),
  "model.frame_control.index_scale": Number("(0, 1e6]", "a factor"),
  "model.frame_control.zero_init_res": _FLAG,
  "model.frame_control.scale_shift": _FLAG,
  "model.*.num_heads": whole("[1, 1024]", "heads"),
  "model.*.context_dim": whole("[1, 65536]", "a token's width"),
  "model.unet.text_attention": Choice(attention.TEXT_ATTENTIONS),
  "model.discriminator.on": Choice(("pixels", "latents")),
  "model.discriminator.position_scale": Number("[0, 100]", "a standard deviation"),
  "model.dit.width": _WIDTH,
  "model.dit.depth": whole("[1, 1024]", "blocks"),
  "model.dit.mlp_ratio": Number("(0, 64]", "widths"),
  "model.dit.patch_size": whole("[1, 256]", "cells a side"),
  "model.dit.scan_blocks": _FLAG,
  "loss.lambda_*": _WEIGHT,
  "loss.drop_*": _SHARE,
  "loss.cra.loss": Choice(adversarial.LOSSES),
  "loss.cra.start_step": _STEPS_OR_NONE,
  "loss.cra.real": Choice(adversarial.REALS),
  "loss.cra.weighting": Choice(adversarial.WEIGHTINGS),
  "loss.cra.max_timestep": whole("[0, 100000]", "a timestep"),
  "loss.cra.discriminator_every": _STEPS,
  "loss.kl_vae.reconstruction": Choice(kl_vae_stage.RECONSTRUCTIONS),
  "loss.kl_vae.saturate": _FLAG,
  "loss.kl_vae.lpips_net": Choice(tuple(lpips.SMALLEST)),
  "loss.kl_vae.adversary_start": _STEPS_OR_NONE,
  **dict.fromkeys(("loss.kl_vae.kl", "loss.kl_vae.lpips", "loss.kl_vae.adversary"), _WEIGHT),
  "sample.guidance_form": Choice(guidance.FORMS),
  "sample.guidance_*": _SCALE,
  "sample.noise": Choice(noise.SHARINGS),
  "sample.frames_per_chunk": whole("[1, 1e6]", "frames"),
  "evaluate.num_*": whole("[2, 1e6]", "clips; FVD needs at least 2"),
  "evaluate.directions": _FLAG,
  "ablation.scored_by": Choice(("ladder", "drift")),
  "ablation.shared": Several(Choice(glober_stages.NAMES)),
}

LGCVD: Mapping[str, Rule] = {
  **COMMON,
  "system": Choice(("lgcvd",)),
  "stages": Several(Choice(lgcvd_stages.NAMES), 1),
  "after": Several(Choice((*_AFTER, "predict", "interpolate"))),
  "data.stride_multiples": Several(whole("[1, 10000]", "strides"), 1),
  "data.video_frames": whole("[2, 10000]", "frames"),
  "fragment.num_frames": whole("[2, 1024]", "frames"),
  "fragment.slots": whole("[1, 1023]", "conditioning frames"),
  "model.decoder_attention": Choice(lgc_unet.DECODER_ATTENTION),
  "model.sequence_encoder": _FLAG,
  "tasks.per": Choice(conditioning.DRAWS),
  **{f"tasks.shares.{task}": _SHARE for task in conditioning.TASKS},
  "objective.second_stage": Choice(objective.SECOND_STAGES),
  "objective.one_stage": Choice(objective.ONE_STAGES),
  "objective.updates": Choice(objective.UPDATES),
  "objective.two_stage": _FLAG,
  "objective.clip_estimate": _FLAG,
  "objective.saturate": _FLAG,
  "sample.last_fragment": Choice(rollout.LAST_FRAGMENTS),
  "sample.given_frames": Choice(rollout.GIVEN_FRAMES),
  "sample.encoder_weights": Choice(rollout.ENCODER_WEIGHTS),
  "sample.precision": Choice(("", *_PRECISIONS)),
  "sample.average_features": _FLAG,
  "sample.trajectories": _COUNT,
  "sample.videos_per_chunk": _COUNT,
  **{f"sample.{key}": _FRAMES for key in ("past", "future", "num_frames", "gap")},
  "evaluate.protocol": Choice(tuple(PROTOCOLS)),
  "ablation.scored_by": Choice(("prediction", "drift")),
  "ablation.shared": Several(Choice(lgcvd_stages.NAMES)),
}

# Keys that a configuration may have although base() lacks them: settings of other samplers and
# schedules.
OPTIONAL = (
  "ablation.variants.*", "diffusion.*.loss_norm", "diffusion.*.loss_weighting",
  "diffusion.schedule.beta_*", "diffusion.schedule.max_beta", "diffusion.schedule.precision",
  "sample.*.clip",
)  # fmt: skip
