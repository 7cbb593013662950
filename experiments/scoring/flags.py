"""The flags of scores and tables."""

from absl import flags

# Flag -> the modes that read it.
READ_BY = {"protocol": {"evaluate", "ablation", "sweep"}, "table": {"evaluate", "benchmark"}}

flags.DEFINE_string(
  "protocol",
  None,
  "How to score. By default LGC-VD takes config.evaluate.protocol, and GLOBER scores its ladder.",
)
flags.DEFINE_string(
  "table",
  None,
  "A table of a paper, such as glober_1a or lgcvd_3, its figures beside those of the runs in "
  "--workdir=DIR,DIR,... (evaluate); or glober_2, time and memory (benchmark).",
)
