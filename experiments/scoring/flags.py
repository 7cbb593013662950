"""The flags of scores and tables."""

from absl import flags

# Flag -> the modes that read it.
READ_BY = {"protocol": {"evaluate", "ablation", "sweep"}, "table": {"evaluate", "benchmark"}}

flags.DEFINE_string(
  "protocol",
  None,
  "Protocol to score by. By default LGC-VD uses config.evaluate.protocol, GLOBER its ladder.",
)
flags.DEFINE_string(
  "table",
  None,
  "A paper's table. evaluate: such as glober_1a or lgcvd_3, beside the figures of the runs in "
  "--workdir=DIR,DIR,...; benchmark: glober_2, time and memory.",
)
