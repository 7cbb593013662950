"""The flags of benchmarks."""

from absl import flags

# Flag -> the modes that read it.
READ_BY = {"inputs": {"benchmark"}}

flags.DEFINE_bool(
  "inputs", False, "Measures how fast the clips of config.data.dir are read, and peak memory."
)
