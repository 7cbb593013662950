"""The fault of one video, which stops no other: data sets skip it and list it."""

import pathlib
from typing import Any


class VideoError(ValueError):
  """A video that cannot be used; `reason` is the message without the name."""

  def __init__(self, path: str | pathlib.Path, reason: str):
    super().__init__(f"{path}: {reason}")
    self.path, self.reason = path, reason

  def __reduce__(self) -> tuple[Any, ...]:
    return VideoError, (self.path, self.reason)
