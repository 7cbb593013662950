"""Video diffusion in JAX: GLOBER and LGC-VD, from data to score.

>>> import videodiff_jax
>>> pipeline = videodiff_jax.load("glober_digits")  # doctest: +SKIP
>>> samples = pipeline.generate(4)  # doctest: +SKIP
"""

import os
from typing import Any

__version__ = "0.1.0"


def load(name: str | os.PathLike[str], **settings: Any) -> Any:
  """The pipeline of a shipped system, or of any workdir or exported folder: see `shipped.load`."""
  from videodiff_jax import shipped  # late: commands that fail on their flags need no JAX

  return shipped.load(name, **settings)
