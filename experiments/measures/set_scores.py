"""Scores of a set of clips: distances of clips and frames, inception score, precision and recall.

All come from one pass over the clips. A drawn set is scored against a real one.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from videodiff_jax.metrics import clip_features, frame_frechet, frechet, i3d, kid, manifolds
from videodiff_jax.pretrained import i3d as i3d_weights
from videodiff_jax.pretrained.files import restricted_pickle

# One split: smaller parts lower the score, and the interval already shows the spread.
_SPLITS = 1
# Settings that change the figures beside FVD. Older score files have neither these nor the figures.
SETTINGS = {
  "frame_detector_sha256": frame_frechet.WEIGHTS.sha256,
  "inception_splits": _SPLITS,
  "manifold_neighbours": manifolds.NEIGHBOURS,
}


@dataclasses.dataclass(frozen=True)
class Features:
  """Features of a set of n clips.

  Attributes:
    logits: (n, 400), `i3d.features`.
    frames: (n, f, 256), `frame_frechet.features`.
  """

  logits: np.ndarray
  frames: np.ndarray

  def __len__(self) -> int:
    return len(self.logits)

  def take(self, clips: np.ndarray | slice) -> "Features":
    """Selects the features of clips by their indices."""
    return Features(self.logits[clips], self.frames[clips])


def locate() -> None:
  """Raises FileNotFoundError, which says what to install, if a network's weights are missing."""
  restricted_pickle.locate(i3d_weights.WEIGHTS)
  restricted_pickle.locate(frame_frechet.WEIGHTS)


def features(clips: np.ndarray | Iterable[np.ndarray], resize: str = "torch") -> Features:
  """Extracts features of uint8 clips (n, f, h, w, c), or of an iterable of chunks of them.

  Raises the errors of `clip_features.extract`.
  """
  return Features(
    *clip_features.extract(clips, [i3d.DETECTOR, frame_frechet.DETECTOR], resize=resize)
  )


def figures(
  real: Features, drawn: Features, covariance: str = "unbiased", paired: bool = False
) -> dict[str, float]:
  """Returns the drawn set's figures by name; both sets need at least two clips.

  `paired` is that of `kid.kernel_distance`: whether each drawn clip continues its real one.
  """
  return {
    "fvd": frechet.fvd(real.logits, drawn.logits, covariance),
    "alexnet_frame_frechet": frame_frechet.alexnet_frame_frechet(
      real.frames, drawn.frames, covariance
    ),
    "i3d_kernel_distance": kid.kernel_distance(real.logits, drawn.logits, paired),
    "i3d_inception_score": inception_score(drawn.logits),
  }


def inception_score(logits: np.ndarray) -> float:
  """Computes `i3d.inception_score` of a whole set from its logits (n, 400)."""
  return i3d.inception_score(logits, _SPLITS)


class Manifolds:
  """Precision and recall of the drawn set, also for resampled clips of both sets.

  The manifolds are always those of the whole sets, since a clip that a resampled set holds twice
  would be its own nearest neighbour. Sets too small for manifolds have no figures.
  """

  def __init__(self, real: np.ndarray, drawn: np.ndarray):
    """Takes logits (n, 400) and (m, 400)."""
    self._inside: dict[str, np.ndarray] = {}
    if min(len(real), len(drawn)) > manifolds.NEIGHBOURS:
      self._inside = {
        "precision": manifolds.precision(real, drawn),
        "recall": manifolds.recall(real, drawn),
      }

  def figures(self, of_real: np.ndarray, of_drawn: np.ndarray) -> dict[str, float]:
    """Returns 'i3d_precision' over these drawn clips and 'i3d_recall' over these real ones."""
    chosen = {"precision": of_drawn, "recall": of_real}
    return {f"i3d_{name}": float(x[chosen[name]].mean()) for name, x in self._inside.items()}


class Predicted:
  """KID, precision and recall of predicted clips against the very clips that they continue.

  Each is the mean over trajectories, of which each makes a set as large as the real one: the
  figures of protocols with few and with many trajectories have one meaning.
  """

  def __init__(self, real: np.ndarray, drawn: np.ndarray):
    """Takes logits (n, 400) and (T, n, 400), of T trajectories of each clip; n >= 2."""
    self.real, self.drawn = real, drawn
    self._inside = [Manifolds(real, of_trajectory) for of_trajectory in drawn]

  def figures(self, clips: np.ndarray) -> dict[str, float]:
    """Returns the figures of the clips of these indices; manifolds are those of all clips."""
    real = self.real[clips]
    rows = [
      {"i3d_kernel_distance": kid.kernel_distance(real, drawn[clips], paired=True)}
      | inside.figures(clips, clips)
      for drawn, inside in zip(self.drawn, self._inside)
    ]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
