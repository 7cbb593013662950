"""The base of all LGC-VD configurations: the paper's values, and variants of every config.

Comments give the paper's place; 'release' is the authors' code, 'ours' what neither names.
"""

from ml_collections import ConfigDict

from configs import common

# Table 5's '- two-stage', with as many updates and fragments as two-stage training.
_ONE_STAGE = {"two_stage": False, "one_stage": "both"}
# Variants that --mode=ablation compares: Table 5, and Sec. 4.2's epsilon.
_ABLATIONS = {
  "baseline": {"model": {"sequence_encoder": False}, "objective": _ONE_STAGE},
  "no_encoder": {"model": {"sequence_encoder": False}},  # '+ two-stage training'
  "no_two_stage": {"objective": _ONE_STAGE},  # '+ sequential encoder'
  "full": {},
  "eps": {"diffusion": {"process": {"prediction_type": "epsilon"}}},
  "one_update": {"objective": {"updates": "one"}},
}


def base() -> ConfigDict:
  """LGC-VD at the size of Sec. 4.2; a dataset's config sets what differs there."""
  config = ConfigDict()
  config.system = "lgcvd"
  config.stages = ("lgcvd",)
  config.after = ("predict", "interpolate", "evaluate")  # modes run when trained; ours
  # File of learning curves; training warns if its validation loss is worse than these. Ours.
  config.expected = ""
  config.checksums = True  # SHA-256 of checkpoints, checked on reading (0.5 s per GB); ours
  config.profile = ConfigDict()  # an XLA trace of every stage's steps, in STAGE/trace; ours
  config.profile.first_step = 10  # steps of a call before it, which compile and warm up
  config.profile.num_steps = 0  # traced; 0: none
  config.seed = 0  # for parameters, data order, noise and previews
  config.precision = "bfloat16"  # in computation; ours (release: float16 with a scaled loss)
  config.remat = "none"  # "none" or "blocks": recompute blocks in the backward pass; ours

  config.init = ConfigDict()
  # Workdir or exported folder whose averages training starts from; '': random start. Ours.
  config.init.run = ""

  config.mesh = ConfigDict()
  config.mesh.data = -1  # devices along 'data'; -1: all devices / fsdp
  config.mesh.fsdp = 1  # devices that share one copy of the parameters
  config.mesh.cpu_devices = 1  # without an accelerator: devices to split the CPU's cores into

  config.data = data = ConfigDict()
  data.name = ""  # data set of data/sets, see python -m data.prepare --help
  data.dir = ""  # the prepared store; embedded sets prepare theirs in data/stores
  data.local_dir = ""  # for copies of stores in object storage; "": the user's cache folder. Ours
  data.image_size = 64  # pixels, square
  data.channels = 3  # colour channels
  data.num_frames = 14  # L, frames per training sample: two windows (Sec. 4.2)
  data.stride = 1  # stored frames between two frames of a clip
  # Multiples of the stride; each sample uses a random one. (1, 3) also learns gaps of up to 20
  # frames, from videos of 40 and more. The network does not see the stride, so that unconditional
  # videos come at any of them. Ours.
  data.stride_multiples = (1,)
  data.flip = True  # mirror a whole clip with p = 0.5 (release, which does so in tests too)
  data.sampling = "video"  # an item is a video; "clip": every start is an item
  data.threads = 16  # threads that read and decode
  data.video_frames = 30  # frames per video of an embedded set; ours

  config.fragment = ConfigDict()
  config.fragment.num_frames = 8  # F (Sec. 4.2: N = 8)
  config.fragment.slots = 2  # k, conditioning frames of a fragment (Sec. 4.2: K = 2)

  config.model = model = ConfigDict()
  model.channels = 128  # release
  model.multipliers = (1, 2, 3, 4)  # release
  model.blocks = 2  # per level on the way down; the way up has one more (release)
  model.attention_rates = (4,)  # side 16 of 64, 32 of 128 (release)
  model.head_channels = 128  # release
  model.decoder_attention = "matched"  # the level the paper means; release: "mirrored"
  model.sequence_encoder = True  # off: '- sequence encoder' of Table 5

  config.diffusion = diffusion = ConfigDict()
  diffusion.schedule = ConfigDict()
  diffusion.schedule.kind = "cosine"  # Sec. 4.2
  diffusion.schedule.num_timesteps = 1000  # T (Sec. 4.2)
  diffusion.schedule.max_beta = 0.9999  # release
  diffusion.schedule.precision = "float64"  # ours (release: float32)
  diffusion.process = ConfigDict()
  diffusion.process.prediction_type = "v_prediction"  # Sec. 4.2
  diffusion.process.loss_norm = "l2"  # Eq. 8-9; release: "l1"
  diffusion.process.timestep_power = 1.0  # t uniform

  config.tasks = tasks = ConfigDict()
  tasks.per = "sample"  # a task is drawn for each sample; release: "batch"
  tasks.shares = ConfigDict()  # share of each task, from the release; the paper gives none
  tasks.shares.prediction = 0.45
  tasks.shares.live_photo = 0.0  # from one frame (p = 1); ours, as the release has no such task
  tasks.shares.generation = 0.4
  tasks.shares.interpolation = 0.05  # first and last frame of the fragment
  tasks.shares.infilling = 0.1  # k different positions, of which one may be empty; ours
  tasks.shares.random = 0.0  # the same without the fragment's last frame: release 0.1

  config.objective = ConfigDict()
  config.objective.two_stage = True  # Sec. 3.3; off: '- two-stage' of Table 5
  # Local frames of the second stage: the last ones of the estimate (Sec. 3.3); "release": only in
  # the task prediction, else true ones or none.
  config.objective.second_stage = "paper"
  # With two_stage off: one window of each sample, in one update; "both": both windows, with as many
  # updates as two stages. Ours, as the release has no such switch.
  config.objective.one_stage = "halves"
  config.objective.updates = "two"  # an optimiser step per stage (release); or "one" for both
  config.objective.clip_estimate = True  # x_0 of the first stage to [-1, 1]; ours (release: not)
  config.objective.saturate = False  # ignore overshoot at saturated pixels; ours

  config.train = ConfigDict()
  config.train.lgcvd = stage(steps=300_000, batch_size=192)

  config.sample = sample = ConfigDict()
  sample.num_videos = 8
  sample.trajectories = 1  # N, samples of each video
  sample.past = 2  # p, frames given before (Sec. 4.3)
  sample.future = 1  # frames given after a gap; with one before it
  sample.num_frames = 28  # frames to predict (Table 1), or of a generated video
  sample.gap = 6  # frames to interpolate
  sample.sampler = common.sampler(100)  # Sec. 4.2
  sample.sampler.kind = "ddpm"  # Sec. 4.2
  sample.sampler.grid = "spaced"  # release
  sample.sampler.clip = True  # every x_0 to [-1, 1] (release)
  sample.last_fragment = "truncate"  # ours; release: "right_aligned"
  sample.given_frames = "kept"  # ours; release: "redrawn" by the model
  sample.encoder_weights = "ema"  # ours; release: "raw"
  sample.precision = ""  # in sampling; "": config.precision (release: "float32")
  sample.average_features = False  # release: each context averaged with the one before
  sample.videos_per_chunk = 32  # trajectories per device in one call; bounds memory

  # The log-SNR of a cosine schedule starts too low for steps uniform in log-SNR.
  config.sweep = common.sweep(("uniform", "spaced"))

  config.evaluate = evaluate = ConfigDict()
  evaluate.protocol = "standard"  # see videodiff_jax/metrics/protocols.py; ours
  evaluate.motion = False  # centroid metrics, for one bright object on black
  evaluate.digits = False  # read digits, see metrics/digit_reader.py; for labelled digits on black

  config.ablation = ConfigDict()
  config.ablation.variants = ConfigDict(_ABLATIONS)
  config.ablation.compared = ",".join(_ABLATIONS)  # variants to compare, in this order
  config.ablation.reference = "full"  # variant that the others are compared with
  config.ablation.scored_by = "prediction"  # or "drift": long videos, frame by frame
  config.ablation.seeds = (0, 1, 2)  # each trains every variant
  config.ablation.shared = ()  # stages that all variants share: trained once per seed
  return config


def stage(steps: int, batch_size: int) -> ConfigDict:
  """Training settings of the networks: plain Adam (Sec. 4.2), averaged as in the release."""
  settings = common.stage(steps, batch_size, learning_rate=1e-4, ema=0.995)
  del settings.accumulate  # each stage of Sec. 3.3 takes the whole batch
  settings.optimizer.update(weight_decay=0.0, warmup_steps=0, clip_norm=0.0)
  settings.ema.update(interval=10, copy_until=2000, warmup=False)
  return settings


def smoke(config: ConfigDict) -> None:
  """`:smoke`: the same code, small enough to train a few steps in seconds on CPU."""
  config.precision = "float32"
  config.remat = "none"
  config.mesh.fsdp = 1
  config.data.image_size = 32
  config.data.threads = 2
  config.model.update(channels=8, multipliers=(1, 2), attention_rates=(2,))
  train = config.train.lgcvd
  train.update(steps=4, batch_size=8, log_every=2)
  train.update(checkpoint_every=4, preview_every=4, validate_every=4)
  train.optimizer.warmup_steps = min(train.optimizer.warmup_steps, 1)
  train.ema.update(interval=1, copy_until=0)
  config.sample.update(num_videos=2, num_frames=8)
  config.sample.sampler.num_steps = 2
  config.after = ("predict",)
  config.evaluate.protocol = "smoke"


def release(config: ConfigDict) -> None:
  """`:release`: as the authors' code trains and samples; what their checkpoints need."""
  config.model.decoder_attention = "mirrored"
  config.diffusion.schedule.precision = "float32"
  config.diffusion.process.loss_norm = "l1"
  config.tasks.per = "batch"
  config.tasks.shares.update(
    prediction=0.45, live_photo=0.0, generation=0.4, interpolation=0.05, infilling=0.0, random=0.1
  )
  config.objective.update(second_stage="release", updates="two", clip_estimate=False)
  config.sample.update(
    last_fragment="right_aligned",
    given_frames="redrawn",
    encoder_weights="raw",
    average_features=True,
    precision="float32",
  )


def pod(config: ConfigDict) -> None:
  """`:pod`: as it is: networks of this size fit whole on every chip (docs/compiled.md)."""
  config.mesh.fsdp = 1


def _ablation(name: str) -> common.Variant:
  return lambda config: config.update(_ABLATIONS[name])


def finish(
  config: ConfigDict, arg: str | None, more: dict[str, common.Variant] | None = None
) -> ConfigDict:
  """Applies the comma-joined variants of `arg`, in order: those of every data set, and `more`.

  Raises:
    ValueError: an unknown variant; lists the valid ones.
  """
  variants = {
    "smoke": smoke,
    "release": release,
    **{name: _ablation(name) for name in _ABLATIONS},
    **(more or {}),
  }
  return common.finish(config, arg, variants)
