"""The base of all GLOBER configurations: the paper's values, and variants of every config.

Comments give the paper's place; 'release' is the authors' code of January 2024, 'March 2023'
its revision that agrees with the paper's text, 'ours' what neither names.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

Variant = Callable[[ConfigDict], None]

# Variants that --mode=ablation compares (GLOBER Table 3), and others that may explain why the
# paper's loss does or does not help.
_ABLATIONS = {
  "no_cra": {"loss": {"lambda_cra": 0.0}},
  "cra": {},
  "cra_frames": {"loss": {"cra": {"real": "frames"}}},
  "cra_min_snr": {"loss": {"cra": {"weighting": "min_snr"}}},
  "cra_late": {"loss": {"cra": {"max_timestep": 500}}},
  "cra_weak": {"loss": {"lambda_cra": 0.01}},
  "cra_strong": {"loss": {"lambda_cra": 1.0}},
  "cra_hinge": {"loss": {"cra": {"loss": "hinge"}}},
  "cra_log": {"loss": {"cra": {"loss": "log"}}},
}


def base() -> ConfigDict:
  """The values of GLOBER Table 8, Sec. 4.1; a dataset's config sets what differs there."""
  config = ConfigDict()
  config.system = "glober"
  config.stages = (
    "kl_vae",
    "autoencoder",
    "generator",
  )  # in order; the paper's KL-VAE is pretrained
  config.after = ("sample", "evaluate")  # modes that run after the last stage; ours
  # File of learning curves; training warns if its validation loss is worse than these. Ours.
  config.expected = ""
  config.checksums = True  # SHA-256 of checkpoints, checked on reading (0.5 s per GB); ours
  config.profile = ConfigDict()  # an XLA trace of every stage's steps, in STAGE/trace; ours
  config.profile.first_step = 10  # steps of a call before it, which compile and warm up
  config.profile.num_steps = 0  # traced; 0: none
  config.seed = 0  # for parameters, data order, noise and previews
  config.condition = "none"  # "none", "class" (a learned table; ours) or "text" (Sec. 3.1)
  config.precision = "bfloat16"  # in computation; the paper: 16-bit. Parameters stay float32
  config.remat = "blocks"  # "none" or "blocks": recompute blocks in the backward pass; ours

  config.mesh = ConfigDict()
  config.mesh.data = -1  # devices along 'data'; -1: all devices / fsdp
  config.mesh.fsdp = 1  # devices that share one copy of the parameters
  config.mesh.cpu_devices = 1  # without an accelerator: devices to split the CPU's cores into

  config.text = text = ConfigDict()  # for condition "text"
  text.source = "prompt"  # text of a video: "prompt", the store's "captions" or "class_names"
  text.prompt = ""  # text of every video, with source "prompt"
  text.encoder = "none"  # "clip" (Sec. 3.1), "minilm"; "none": the prompt's tokens are learned
  text.tells_sides = True  # captions may say left or right, so clips are not mirrored; ours
  text.length = 77  # tokens (CLIP's; release: 64 in the decoder if they are learned)
  text.vocabulary = ""  # for "clip", see text/tokenizer.py; "": beside the weights, or installed

  config.init = ConfigDict()  # pretrained weights: files, or folders made of them; '': none
  config.init.kl_vae = ""  # Stable Diffusion's or KL-f4 (Sec. 3.1); then its stage is not trained
  config.init.unet = (
    ""  # Stable Diffusion's (Sec. 3.1); the rest of the autoencoder starts at random
  )
  config.init.generator = ""  # a DiT; tensors that fit are loaded, others listed (ours)
  config.init.text_encoder = ""  # CLIP's
  # Workdir or exported folder whose averages and statistics every stage starts from. Ours.
  config.init.run = ""
  config.init.allow = ""  # comma-joined patterns of tensors that may be missing or left over

  config.data = data = ConfigDict()
  data.name = ""  # data set of data/sets, see python -m data.prepare --help
  data.dir = ""  # the prepared store; embedded sets prepare theirs in data/stores
  data.local_dir = ""  # for copies of stores in object storage; "": the user's cache folder. Ours
  data.image_size = 256  # pixels, square
  data.channels = 3  # colour channels
  data.num_classes = 0  # used with condition "class"
  data.num_frames = 16  # F, frames per clip (Sec. 4.1)
  data.stride = 1  # stored frames between two frames of a clip (release: consecutive)
  data.num_keyframes = 4  # K: indices 0, 5, 10, 15 (Sec. 4.1; release: K = 8, 0, 2, ..., 14)
  data.num_targets = 2  # frames synthesised per clip and step, i < j strictly (Sec. 3.1)
  data.frame_time = "index / F"  # tau (paper, release); or "index / (F - 1)" (ours)
  data.flip = True  # mirror a whole clip with p = 0.5 (release); see text.tells_sides
  data.sampling = "video"  # an item is a video; "clip": every start is an item
  data.threads = 16  # threads that read and decode
  # "auto": a stage reads the cache if --mode=cache made one before the stage started; "make": the
  # generator's is made first if missing; "make_if_worth": that of every stage that would otherwise
  # encode each frame or clip twice or more, if it takes less than half of the free disk;
  # "required": stop without one; "none": never read. Ours.
  data.cache = "make_if_worth"

  config.model = model = ConfigDict()
  # 0: latents are standardised by measured statistics. Otherwise they are multiplied by this value;
  # Stable Diffusion's 0.18215 (release) is only for its KL-VAE in config.init.kl_vae.
  model.latent_scale = 0.0
  model.kl_vae = ConfigDict()
  model.kl_vae.channels = 128
  model.kl_vae.multipliers = (1, 2, 4, 4)  # f_frame = 8 (Table 8); (1, 2, 4) is f = 4
  model.kl_vae.blocks = 2
  model.kl_vae.z_channels = 4
  model.kl_vae.embed_dim = 4
  model.kl_vae.mid_attention = True
  model.kl_vae.norm_groups = 32  # at most; narrow networks need fewer (ours)
  model.video_encoder = ConfigDict()
  model.video_encoder.channels = 320  # Table 8
  model.video_encoder.multipliers = (1, 2)  # Table 8; f_video = 2
  model.video_encoder.blocks = 2  # Table 8
  model.video_encoder.attention_rates = (1, 2)  # sides 32, 16 (release; Table 8 prints [16, 8])
  model.video_encoder.num_head_channels = 64  # Table 8
  model.video_encoder.out_channels = 16  # C'' (Table 8)
  model.video_encoder.temporal_kernel = 3  # release; 1 is the paper's 2-D convolution
  model.video_encoder.head = "joint"  # March 2023; "split_first" is the paper's text
  model.video_encoder.logvar_bias = 0.0  # added to the posterior's log-variance; ours
  model.video_encoder.zero_init = True  # last layers of residual and attention blocks (release)
  model.video_encoder.norm_groups = 32  # at most; narrow networks need fewer (ours)
  model.frame_control = ConfigDict()
  model.frame_control.which = "all"  # 25 UNet blocks (paper); "down": 12 (March 2023)
  model.frame_control.index_scale = 1.0  # multiplies tau before its sinusoid (release: 1)
  model.frame_control.zero_init_res = True  # release; the 1x1 convolutions always start at zero
  model.frame_control.scale_shift = False  # release; True lets tau scale features, not only add
  model.frame_control.norm_groups = 32  # at most; narrow networks need fewer (ours)
  model.unet = ConfigDict()
  model.unet.channels = 320  # Table 8
  model.unet.multipliers = (1, 2, 4, 4)  # Table 8
  model.unet.blocks = 2  # Table 8
  model.unet.attention_rates = (1, 2, 4)  # sides 32, 16, 8 (Table 8)
  model.unet.num_heads = 8  # Table 8
  model.unet.context_dim = 768  # width of condition tokens (Stable Diffusion v1)
  model.unet.text_attention = "cross"  # Stable Diffusion's; "joint": Sec. 3.1
  model.unet.norm_groups = 32  # at most; narrow networks need fewer (ours)
  model.discriminator = ConfigDict()
  model.discriminator.on = "pixels"  # "pixels" (Sec. 3.1) or "latents" (March 2023)
  model.discriminator.channels = 64  # release; 256 on latents
  model.discriminator.multipliers = (1, 2, 3, 4, 4)  # release; (1, 1, 2, 2, 2) on latents
  model.discriminator.blocks = 1
  model.discriminator.attention_rates = (16,)  # side 16 of 256 (release); (2, 4, 8, 16) on latents
  model.discriminator.num_head_channels = 32  # release
  model.discriminator.position_scale = 1.0  # initial std of e_0 and e_1 (release)
  model.discriminator.norm_groups = 32  # at most; narrow networks need fewer (ours)
  model.dit = ConfigDict()
  model.dit.width = 1024  # Table 8
  model.dit.depth = 20  # Table 8
  model.dit.num_heads = 16  # Table 8
  model.dit.mlp_ratio = 4
  model.dit.patch_size = 1  # 256 tokens (Sec. 3.2: v is flattened)
  model.dit.context_dim = 768
  model.dit.scan_blocks = True  # one compiled block; off is faster on CPU

  config.diffusion = diffusion = ConfigDict()
  diffusion.schedule = ConfigDict()
  diffusion.schedule.kind = "scaled_linear"  # release; the paper names none
  diffusion.schedule.num_timesteps = 1000
  diffusion.schedule.beta_start = 8.5e-4
  diffusion.schedule.beta_end = 1.2e-2
  for name in ("decoder", "generator"):
    diffusion[name] = ConfigDict()
    diffusion[name].prediction_type = "epsilon"  # Eq. 7
    diffusion[name].loss_weighting = "uniform"  # Eq. 7; or "min_snr"
    diffusion[name].timestep_power = 1.0  # t uniform

  config.loss = loss = ConfigDict()
  loss.lambda_kl = 1e-6  # lambda_1 (Sec. 4.1; release: 1e-7), for the sum over h, w, c
  loss.lambda_cra = 0.1  # lambda_2 (Sec. 4.1)
  loss.drop_video = 0.1  # share with zero keyframe latents, for guidance (release)
  loss.drop_condition = 0.1  # share with the null class, for guidance (release)
  loss.cra = ConfigDict()
  # "hinge": release; "balanced_hinge": ours, real pairs weigh as much as fake ones; "log": Eq. 10,
  # corrected as DESIGN.md section 5 says.
  loss.cra.loss = "hinge"
  loss.cra.start_step = 0  # step from which L_cra counts (release: from the first)
  loss.cra.real = "frames"  # x_i (Sec. 3.1); "reconstructions" of them by the KL-VAE (release)
  # Ours: pairs are weighted by min(1, SNR) of their noisier frame, as Eq. 9 amplifies errors of a
  # predicted noise up to 14.6 times. "uniform": equally (release; there, no gradient reaches the
  # decoder).
  loss.cra.weighting = "min_snr"
  loss.cra.max_timestep = 999  # pairs with a noisier frame do not count; 999: all do (release)
  loss.cra.discriminator_every = 1  # steps; the release cycles G, D, D
  loss.kl_vae = ConfigDict()  # Rombach et al.'s recipe; the paper uses a pretrained KL-VAE
  loss.kl_vae.reconstruction = "l1"
  loss.kl_vae.saturate = False  # ignore overshoot at saturated pixels; ours
  loss.kl_vae.kl = 1e-6
  loss.kl_vae.lpips = 1.0  # weight; 0: no LPIPS, and its weights are not needed
  loss.kl_vae.lpips_net = "vgg"
  loss.kl_vae.adversary = (
    0.5  # ratio of its gradient to the reconstruction's at the last layer; 0: off
  )
  loss.kl_vae.adversary_start = 50_000

  config.train = ConfigDict()
  # Rombach et al.'s: a base rate of 4.5e-6 times the frames per step (accumulation x GPUs x batch),
  # Adam (0.5, 0.9) without decay or clipping, 12 frames per GPU. Warm-up and average: ours.
  config.train.kl_vae = stage(steps=200_000, batch_size=12 * 8, learning_rate=4.32e-4, ema=0.999)
  config.train.kl_vae.optimizer.update(b1=0.5, b2=0.9, weight_decay=0.0, clip_norm=0.0)
  config.train.autoencoder = stage(steps=40_000, batch_size=32 * 8, learning_rate=1e-4)
  # Sec. 4.1: 32 per GPU. The frozen encoders cost 2.3 times the DiT's step per clip, so each clip
  # is encoded once for four samples of v, timestep and noise: 8 clips per GPU (ours). With a cache
  # of global features (--mode=cache) nothing is encoded; then use 32 * 8 clips and 1 draw.
  config.train.generator = stage(steps=100_000, batch_size=8 * 8, learning_rate=5e-5)
  config.train.generator.draws_per_clip = 4

  config.sample = sample = ConfigDict()
  sample.num_videos = 16
  sample.decoder = sampler(50)  # Sec. 4.1: DDIM
  sample.generator = sampler(50)  # Sec. 4.1
  sample.guidance_decoder = 3.0  # s of the decoder; a scale of 3 in Sec. 4.1, read as s
  sample.guidance_generator = 9.0  # s (Sec. 4.1); used only with a condition
  # The decoder's unconditional prediction: "text": without text (Appendix E: a scale for class
  # conditions); "single": without text and video (March 2023); "ddim_v2", "ddim_v1" (release): two
  # scales.
  sample.guidance_form = "text"
  sample.guidance_video = 1.5  # with two scales (release)
  sample.guidance_text = 1.5
  sample.noise = "individual"  # starting noise of a clip's frames (Sec. 2); "shared", "mixed"
  sample.frames_per_chunk = 32  # frames per device in one compiled call; bounds memory

  config.sweep = sweep(("uniform", "log_snr"))

  config.evaluate = evaluate = ConfigDict()
  evaluate.num_real = 2048  # training clips that sets are compared with
  evaluate.num_fake = 2048  # clips per set
  evaluate.motion = False  # centroid metrics, for one bright object on black
  evaluate.digits = False  # read digits, see metrics/digit_reader.py; for labelled digits on black
  evaluate.directions = False  # check motion against prompts; for captions as in captioned_digits

  config.ablation = ConfigDict()
  config.ablation.variants = ConfigDict(_ABLATIONS)
  config.ablation.compared = "no_cra,cra"  # variants to compare, in this order
  config.ablation.reference = "no_cra"  # variant that the others are compared with
  config.ablation.scored_by = "ladder"  # or "drift": long videos, frame by frame
  config.ablation.seeds = (0, 1, 2)  # each trains every variant
  config.ablation.shared = ("kl_vae",)  # stages that all variants share: trained once per seed
  return config


def stage(steps: int, batch_size: int, learning_rate: float, ema: float = 0.9999) -> ConfigDict:
  """Training settings of a stage; AdamW with torch's values (release), the rest ours."""
  settings = ConfigDict()
  settings.steps = steps
  settings.batch_size = batch_size  # clips per step over all devices
  settings.accumulate = 1  # parts of a batch with accumulated gradients; ours, to fit memory
  settings.optimizer = ConfigDict()
  settings.optimizer.learning_rate = learning_rate
  settings.optimizer.b1 = 0.9
  settings.optimizer.b2 = 0.999
  settings.optimizer.weight_decay = 0.01
  settings.optimizer.warmup_steps = 1000  # ours (May 2023: 1000; release: none)
  settings.optimizer.decay = "constant"
  settings.optimizer.clip_norm = 1.0  # ours (release: none)
  settings.ema = ConfigDict()
  settings.ema.decay = ema  # ours (release: no average)
  settings.ema.interval = 1
  settings.ema.copy_until = 0
  settings.ema.warmup = (
    True  # ours: without it 1.8 % of the initial values is left after 40,000 steps
  )
  settings.log_every = 50
  settings.checkpoint_every = 2000
  settings.preview_every = 2000
  settings.validate_every = 1000  # ours; 0: never
  settings.keep = 2  # checkpoints
  return settings


def sampler(num_steps: int) -> ConfigDict:
  """DDIM; kind: ddim, ddpm, dpmpp_2m, unipc; grid: uniform, log_snr, leading, spaced."""
  settings = ConfigDict()
  settings.kind = "ddim"
  settings.num_steps = num_steps
  settings.grid = "uniform"  # in t; release: "leading" with final "abar0"
  settings.final = "x0"  # end of the last step; or "abar0"
  settings.eta = 0.0  # noise of DDIM
  return settings


def sweep(grids: tuple[str, ...]) -> ConfigDict:
  """Points of --mode=sweep: every kind on every grid with every number of steps; ours."""
  settings = ConfigDict()
  settings.kinds = ("ddim", "ddpm", "dpmpp_2m", "unipc")
  settings.grids = grids
  settings.steps = (2, 5, 10, 20, 50, 100)  # of each stage
  return settings


def smoke(config: ConfigDict) -> None:
  """`:smoke`: the same code, small enough to train a few steps per stage in seconds on CPU."""
  config.precision = "float32"
  config.remat = "none"
  config.mesh.fsdp = 1
  data, model = config.data, config.model
  data.image_size = 32
  data.threads = 2
  data.cache = "auto"
  config.text.length = min(config.text.length, 16)
  multipliers = (1, 1, 1) if len(model.kl_vae.multipliers) == 3 else (1, 1, 1, 1)
  model.kl_vae.update(channels=8, multipliers=multipliers, blocks=1, mid_attention=False)
  for name in ("kl_vae", "video_encoder", "frame_control", "unet", "discriminator"):
    model[name].norm_groups = 4
  model.video_encoder.update(channels=8, blocks=1, num_head_channels=8)
  model.unet.update(channels=8, multipliers=(1, 1), blocks=1, num_heads=1)
  model.unet.attention_rates = (2,)
  model.discriminator.update(channels=8, multipliers=(1, 1, 1), attention_rates=(4,))
  model.discriminator.num_head_channels = 8
  model.dit.update(width=16, depth=2, num_heads=2, scan_blocks=False)
  if config.text.encoder == "none":  # else tokens are as wide as the encoder's
    model.unet.context_dim = model.dit.context_dim = 8
  config.loss.cra.start_step = min(config.loss.cra.start_step, 2)
  config.loss.kl_vae.update(lpips=0.0, adversary=0.0)
  for name in config.stages:
    train = config.train[name]
    train.update(steps=4, batch_size=8, accumulate=1)
    train.update(log_every=2, checkpoint_every=4, preview_every=4, validate_every=4)
    train.optimizer.warmup_steps = 1
  config.sample.num_videos = 2
  config.sample.frames_per_chunk = 16
  config.sample.decoder.num_steps = config.sample.generator.num_steps = 2
  config.after = ("sample",)
  config.evaluate.update(num_real=4, num_fake=2)


def kl_f4(config: ConfigDict) -> None:
  """`:kl_f4`: the latents of Rombach et al.'s published KL-f4, for config.init.kl_vae."""
  # Table 8 prints 4 channels of latents at f_frame = 4; the published one has 3.
  config.model.kl_vae.update(multipliers=(1, 2, 4), z_channels=3, embed_dim=3)


def no_cra(config: ConfigDict) -> None:
  """`:no_cra`: without the CRA loss (GLOBER Table 3)."""
  config.loss.lambda_cra = 0.0


def frames128(config: ConfigDict) -> None:
  """`:frames128`: clips of 128 frames (GLOBER Table 5)."""
  config.data.update(num_frames=128, num_keyframes=16)  # keyframes: ours, the paper names none
  train = config.train.autoencoder
  train.accumulate = max(train.accumulate, 4)  # fits 8 GPUs of 80 GB, experiments/results/compiled


def pod(config: ConfigDict) -> None:
  """`:pod`: the paper's batches on v5e:4x8, v5p:2x2x4 or h100:8, see docs/compiled.md; ours."""
  config.mesh.fsdp = 8  # every eight devices share one copy of parameters and moments
  config.remat = "blocks"
  train = config.train.autoencoder
  train.accumulate = train.batch_size // 64  # parts of 64 clips: 2, 4 or 8 a device


def finish(config: ConfigDict, arg: str | None, variants: dict[str, Variant]) -> ConfigDict:
  """Applies the comma-joined variants of `arg`, in order; GLOBER's `smoke` unless one is given.

  Raises:
    ValueError: an unknown variant; lists the valid ones.
  """
  variants = {"smoke": smoke} | variants
  for name in filter(None, (arg or "").split(",")):
    if name not in variants:
      raise ValueError(f"Unknown variant {name!r}. Choose among: {', '.join(sorted(variants))}.")
    variants[name](config)
  return config
