"""GLOBER: a global feature guides a diffusion decoder that draws any frame of a clip.

>>> from videodiff_jax import glober
>>> pipeline = glober.Pipeline.from_workdir("runs/glober_digits")  # doctest: +SKIP
>>> samples = pipeline.generate(4)  # doctest: +SKIP
"""

from videodiff_jax.glober.pipeline import Pipeline, Samples

__all__ = ["Pipeline", "Samples"]
