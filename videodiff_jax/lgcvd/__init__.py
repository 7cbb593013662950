"""LGC-VD: fragments, one after another, each guided by frames and by the whole last fragment.

>>> from videodiff_jax import lgcvd
>>> pipeline = lgcvd.Pipeline.from_workdir("runs/lgcvd_digits")  # doctest: +SKIP
>>> samples = pipeline.predict(frames, num_frames=28)  # doctest: +SKIP
"""

from videodiff_jax.lgcvd.pipeline import Pipeline, Samples

__all__ = ["Pipeline", "Samples"]
