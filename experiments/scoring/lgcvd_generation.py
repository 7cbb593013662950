"""LGC-VD's --mode=evaluate --protocol=NAME for generated videos, in evaluations/.

videodiff_jax/metrics/clip_protocols.py defines the clips and the measures of each protocol.
"""

import pathlib
from typing import Any

import ml_collections

from experiments.scoring import glober_protocols
from experiments.setup import checks, frame_stores
from videodiff_jax.lgcvd.pipeline import Pipeline
from videodiff_jax.metrics.clip_protocols import ClipProtocol


def evaluate(
  workdir: pathlib.Path,
  config: ml_collections.ConfigDict | None,
  name: str | ClipProtocol,
  reuse: bool = False,
) -> dict[str, Any]:
  """Scores unconditionally generated videos against real ones.

  The arguments are those of `glober_protocols.evaluate`.

  Raises:
    UserError: the protocol does not suit this system, data set or machine.
  """
  settings = {} if config is None else config.sample.to_dict()
  pipeline = Pipeline.from_workdir(workdir, **settings)
  protocol = glober_protocols.find_protocol(name) if isinstance(name, str) else name
  if protocol.drawn != "generated" or protocol.jpeg_quality is not None:
    raise checks.UserError(
      f"Protocol {protocol.name!r} is for GLOBER's clips only: choose another --protocol."
    )
  sampler = frame_stores.clip_sampler(pipeline.config, "clip", num_frames=protocol.num_frames)

  def draw(*_: Any) -> glober_protocols.Chunks:
    for seed, count in glober_protocols.chunks_of(protocol, protocol.num_drawn):
      drawn = pipeline.generate(count, num_frames=protocol.num_frames, seed=seed)
      yield drawn.videos, {}, None

  read_digits = (config or pipeline.config).evaluate.digits
  return glober_protocols.against_real(
    workdir, pipeline.config, protocol, sampler, draw, read_digits, reuse
  )
