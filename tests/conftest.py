"""What every test shares: eight fake CPU devices, the compilation cache, --golden-dir."""

import gc
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Arrays of unlike rank are broadcast explicitly, also in the commands that tests start.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "")
  + " --xla_force_host_platform_device_count=8"
  # Compiling is nearly all of a test's time, and tiny shapes gain nothing from optimised code.
  + " --xla_llvm_disable_expensive_passes=true --xla_backend_optimization_level=0"
)

import jax
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


# Tracing makes millions of small objects that live: collecting them again and again takes a fifth
# of its time.
gc.set_threshold(50_000, 20, 50)


def pytest_addoption(parser: pytest.Parser) -> None:
  parser.addoption(
    "--golden-dir",
    type=pathlib.Path,
    default=ROOT / "tests" / "golden" / "data",
    help="Folder with glober/ and lgcvd/*.npz recorded from the authors' modules; "
    "default: %(default)s.",
  )
