"""Protocols whose recipe is the run's own configuration: a score file names them alone.

What else moves their figures stands among the settings of the score file.
"""

import dataclasses

from videodiff_jax.metrics.registry import REGISTRY, NamedProtocol


@dataclasses.dataclass(frozen=True)
class ConfiguredProtocol(NamedProtocol):
  """As many clips as `config.evaluate` says, drawn as `config.sample` says."""

  def written(self) -> str:
    """Its name: it has no settings of its own."""
    return self.name


LADDER = ConfiguredProtocol(
  name="ladder",
  about="GLOBER's: real clips, the KL-VAE's, reconstructions, generated clips and trivial ones, "
  "each against training clips.",
)
DRIFT = ConfiguredProtocol(
  name="drift",
  about="Of both systems: long generated videos frame by frame, beside real ones.",
)
REGISTRY.add(ConfiguredProtocol, LADDER, DRIFT)
