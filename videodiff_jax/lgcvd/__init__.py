"""LGC-VD: video drawn fragment by fragment, each guided by frames and by the fragment before it.

>>> from videodiff_jax import lgcvd
>>> pipeline = lgcvd.Pipeline.from_workdir("runs/lgcvd_digits")  # doctest: +SKIP
>>> samples = pipeline.predict(frames, num_frames=28)  # doctest: +SKIP
"""

from videodiff_jax.lgcvd.pipeline import Pipeline, Samples

__all__ = ["Pipeline", "Samples"]
