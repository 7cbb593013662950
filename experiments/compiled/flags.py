"""The flags of compiling for machines that are not at hand."""

from absl import flags

# Flag -> the modes that read it.
READ_BY = {"compile": {"plan"}, "programs": {"plan"}, "fit": {"plan"}}

flags.DEFINE_list(
  "compile",
  [],
  "Compiles the training steps and samplers for slices of TPUs or machines of GPUs that need not "
  "be at hand, such as v5e:4x8,h100:8, and prints whether they fit.",
)
flags.DEFINE_list(
  "programs",
  [],
  "With --compile: compiles only these, such as generator,sample_frames.",
)
flags.DEFINE_bool(
  "fit",
  False,
  "With --compile: searches the flags with which every program fits, and prints them.",
)
