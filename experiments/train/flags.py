"""The flags of training and of caches."""

from absl import flags

# Flag -> the modes that read it.
READ_BY = {"stage": {"train"}, "cache": {"cache"}}

flags.DEFINE_string("stage", None, "Only this stage.")
flags.DEFINE_enum(
  "cache",
  None,
  ("latents", "global_features"),
  "latents: what the KL-VAE makes of each frame, for the autoencoder's stage; global_features: "
  "what the video encoder makes of each clip, for the generator's.",
)
