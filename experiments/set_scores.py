"""What a set of clips is measured by: FVD, the distance of its frames, I3D's inception score.

All come from one pass over the clips. A drawn set is scored against a real one.
"""

import dataclasses
from collections.abc import Iterable
from typing import Self

import numpy as np

from videodiff_jax.metrics import clip_features, frame_frechet, frechet, i3d
from videodiff_jax.pretrained import i3d as i3d_weights
from videodiff_jax.pretrained import restricted_pickle

# One split: parts of a set lower the score, and the interval tells the spread they are to tell.
_SPLITS = 1
# What moves the figures beside FVD. Score files from before they were measured have neither.
SETTINGS = {
  "frame_detector_sha256": frame_frechet.WEIGHTS.sha256,
  "inception_splits": _SPLITS,
}


@dataclasses.dataclass(frozen=True)
class Features:
  """Of a set of n clips.

  Attributes:
    logits: (n, 400), `i3d.features`.
    frames: (n, f, 256), `frame_frechet.features`.
  """

  logits: np.ndarray
  frames: np.ndarray

  def __len__(self) -> int:
    return len(self.logits)

  def take(self, clips: np.ndarray | slice) -> Self:
    """The features of these clips, by their indices."""
    return Features(self.logits[clips], self.frames[clips])


def locate() -> None:
  """FileNotFoundError, which says what to install, where a network's weights are missing."""
  restricted_pickle.locate(i3d_weights.WEIGHTS)
  restricted_pickle.locate(frame_frechet.WEIGHTS)


def features(clips: np.ndarray | Iterable[np.ndarray], resize: str = "torch") -> Features:
  """Of uint8 clips (n, f, h, w, c), or chunks of them; errors as of `clip_features.extract`."""
  return Features(
    *clip_features.extract(clips, [i3d.DETECTOR, frame_frechet.DETECTOR], resize=resize)
  )


def figures(real: Features, drawn: Features, covariance: str = "unbiased") -> dict[str, float]:
  """The drawn set's figures by name; of at least two clips each."""
  return {
    "fvd": frechet.fvd(real.logits, drawn.logits, covariance),
    "alexnet_frame_frechet": frame_frechet.alexnet_frame_frechet(
      real.frames, drawn.frames, covariance
    ),
    "i3d_inception_score": inception_score(drawn.logits),
  }


def inception_score(logits: np.ndarray) -> float:
  """`i3d.inception_score` of a whole set, from its logits (n, 400)."""
  return i3d.inception_score(logits, _SPLITS)
