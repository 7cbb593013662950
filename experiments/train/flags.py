"""The flags of training and of caches."""

from absl import flags

# Flag -> the modes that read it.
READ_BY = {"stage": {"train"}, "cache": {"cache"}}

flags.DEFINE_string("stage", None, "Trains only this stage.")
flags.DEFINE_enum(
  "cache",
  None,
  ("latents", "global_features"),
  "latents: the KL-VAE's encoding of each frame, for the autoencoder's stage; global_features: "
  "the video encoder's encoding of each clip, for the generator's stage.",
)
