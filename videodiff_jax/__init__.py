"""Video diffusion in JAX: GLOBER and LGC-VD, from data to score.

>>> import videodiff_jax
>>> pipeline = videodiff_jax.load("glober_digits")  # doctest: +SKIP
>>> samples = pipeline.generate(4)  # doctest: +SKIP
"""

import importlib
import os
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from videodiff_jax import glober, lgcvd

__all__ = ["glober", "lgcvd", "load"]
__version__ = "0.1.0"

_SYSTEMS = ("glober", "lgcvd")


def __getattr__(name: str) -> ModuleType:
  """Imports a system's package at its first use, so that importing this package loads no JAX."""
  if name in _SYSTEMS:
    return importlib.import_module(f"{__name__}.{name}")
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
  return sorted([*globals(), *_SYSTEMS])


def load(name: str | os.PathLike[str], **settings: Any) -> "glober.Pipeline | lgcvd.Pipeline":
  """Loads the pipeline of a shipped system, a workdir or an exported folder; see `shipped.load`."""
  from videodiff_jax import shipped  # late: commands that fail on their flags need no JAX

  return shipped.load(name, **settings)
