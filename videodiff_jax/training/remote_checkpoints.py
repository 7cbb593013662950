"""Orbax's checkpoints in object storage.

Orbax writes to gs:// through tensorstore. Tensorstore reaches s3:// as well, but orbax does not ask
it to: two functions of orbax, which describe the place of an array to tensorstore and choose how an
item of a checkpoint is committed, are wrapped here.
"""

import functools
import importlib
import importlib.metadata
import os
import pathlib
from typing import Any

import orbax.checkpoint as ocp

from videodiff_jax import storage

_S3, _GS = "s3://", "gs://"
_COMMITTED = "commit_success.txt"  # orbax's last object of a checkpoint
# Orbax's functions: private, so another version may lack them. The first describes a place to
# tensorstore. The second would rename items, which in object storage copies them one by one.
_DESCRIBES = ("orbax.checkpoint._src.serialization.tensorstore_utils", "build_kvstore_tspec")
_COMMITS = (
  "orbax.checkpoint._src.path.atomicity_defaults",
  "get_item_default_temporary_path_class",
)


def check(folder: pathlib.Path) -> None:
  """Checks that orbax can write checkpoints to a folder, before anything runs.

  Raises:
    ValueError: the folder is an address of s3://, which the installed orbax cannot be taught.
  """
  if str(folder).startswith(_S3):
    _teach_s3()


def temporary_path_class(folder: pathlib.Path) -> Any:
  """Returns how orbax commits a checkpoint: by a last object, or None for its choice on disks."""
  if not storage.is_remote(folder):
    return None
  check(folder)
  return ocp.path.atomicity.CommitFileTemporaryPath


def unfinished(folder: pathlib.Path) -> list[pathlib.Path]:
  """Lists the checkpoints that a killed run left without their last object; none on a disk."""
  there = folder.iterdir() if storage.is_remote(folder) and folder.is_dir() else ()
  steps = [one for one in there if one.name.isdecimal()]
  return [one for one in steps if not (one / _COMMITTED).is_file()]


@functools.cache
def _teach_s3() -> None:
  """Makes orbax treat s3:// as gs://."""
  (place, describe), (defaults, commit) = _function(*_DESCRIBES), _function(*_COMMITS)

  @functools.wraps(describe)
  def described(directory: str, *args: Any, **kwargs: Any) -> Any:
    if not directory.startswith(_S3):
      return describe(directory, *args, **kwargs)
    return _as_s3(describe(_GS + directory.removeprefix(_S3), *args, **kwargs))

  @functools.wraps(commit)
  def committed(path: Any, *args: Any, **kwargs: Any) -> Any:
    if not str(path).startswith(_S3):
      return commit(path, *args, **kwargs)
    return ocp.path.atomicity.CommitFileTemporaryPath

  setattr(place, _DESCRIBES[1], described)
  setattr(defaults, _COMMITS[1], committed)


def _function(module_name: str, name: str) -> tuple[Any, Any]:
  """Returns a module of orbax and a function of it; raises ValueError where there is none."""
  try:
    module = importlib.import_module(module_name)
    return module, getattr(module, name)
  except (ImportError, AttributeError) as error:
    version = importlib.metadata.version("orbax-checkpoint")
    raise ValueError(
      f"orbax-checkpoint {version} does not let checkpoints be written to s3:// ({error}): "
      "install a version that setup.py names, or use gs:// or a disk."
    ) from error


def _as_s3(spec: Any) -> Any:
  """Returns a tensorstore specification with each gs:// place as the same place of s3://."""
  if isinstance(spec, str) and spec.startswith(_GS):
    bucket, _, path = spec.removeprefix(_GS).partition("/")
    return _place(bucket, path)
  if isinstance(spec, dict) and spec.get("driver") == "gcs":
    return _place(spec["bucket"], spec["path"])
  if isinstance(spec, dict):
    return {key: _as_s3(value) for key, value in spec.items()}
  return [_as_s3(value) for value in spec] if isinstance(spec, list) else spec


def _place(bucket: str, path: str) -> dict[str, Any]:
  """Describes a place to tensorstore, which does not read the endpoint's variables itself."""
  place: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": path}
  if "AWS_ACCESS_KEY_ID" in os.environ:  # else it also looks elsewhere, and logs what is not there
    place["aws_credentials"] = {"type": "environment"}
  if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    place |= {"endpoint": endpoint, "aws_region": region}
  return place
