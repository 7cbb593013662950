"""The error for one unusable video. Data sets skip the video, list it, and go on."""

import pathlib
from typing import Any


class VideoError(ValueError):
  """A video cannot be used; `reason` is the message without the video's path."""

  def __init__(self, path: str | pathlib.Path, reason: str):
    super().__init__(f"{path}: {reason}")
    self.path, self.reason = path, reason

  def __reduce__(self) -> tuple[Any, ...]:
    return VideoError, (self.path, self.reason)
