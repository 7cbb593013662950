"""Video diffusion in JAX: GLOBER and LGC-VD, from data to score."""

__version__ = "0.1.0"
