"""Plans the fragments that fill a gap longer than one fragment, from coarse to fine.

Each fragment spans two known frames, which are its first and its last. The masks give the network
a frame's position within the fragment but not the time between frames, so the network can only
fill in at the strides it was trained at.
"""

import itertools
from collections.abc import Sequence

# Indices in the video of one fragment's frames, in order; the first and last frames are known.
Places = tuple[int, ...]


def longest_gap(num_frames: int, strides: Sequence[int]) -> int:
  """Returns the most unknown frames that fragments at these strides fill between two known ones.

  Args:
    num_frames: F.
    strides: training strides, in frames of the video from one frame of a fragment to the next.

  Raises:
    ValueError: the strides do not begin with 1, do not rise, or one is longer than a whole
      fragment at the stride before it, so that no fragment could fill its steps.
  """
  steps = num_frames - 1
  if not strides or strides[0] != 1:
    raise ValueError(f"The strides must begin with 1, not be {tuple(strides)}.")
  for finer, coarser in itertools.pairwise(strides):
    if not finer < coarser <= steps * finer:
      raise ValueError(
        f"The stride after {finer} must be from {finer + 1} to {steps * finer}, which fragments "
        f"of {num_frames} frames fill, not {coarser}."
      )
  return steps * strides[-1] - 1


def plan(gap: int, num_frames: int, strides: Sequence[int]) -> list[list[Places]]:
  """Returns levels of fragments from frame 0 to frame gap + 1; earlier levels give a level's ends.

  Each fragment uses the finest stride that spans its two ends, and as few steps as that stride
  allows. Where the stride divides the distance, all steps have that stride. Elsewhere some steps
  are slightly shorter, though the network was trained at the stride itself and sees only the ends.

  Raises:
    ValueError: as `longest_gap`, or the gap is longer than that.
  """
  if gap > (longest := longest_gap(num_frames, strides)):
    trained = f"stride{'s' * (len(strides) > 1)} {', '.join(map(str, strides))}"
    raise ValueError(
      f"A gap of {gap} frames is too long: the longest gap is {longest}, by fragments of "
      f"{num_frames} frames trained at {trained}. Train at wider strides too "
      "(config.data.stride_multiples)."
    )
  levels, unknown = [], [(0, gap + 1)]
  while unknown:
    levels.append([_places(*ends, num_frames, strides) for ends in unknown])
    neighbours = itertools.chain.from_iterable(map(itertools.pairwise, levels[-1]))
    unknown = [(before, after) for before, after in neighbours if after - before > 1]
  return levels


def _places(begin: int, end: int, num_frames: int, strides: Sequence[int]) -> Places:
  distance = end - begin
  stride = next(stride for stride in strides if distance <= (num_frames - 1) * stride)
  steps = -(-distance // stride)
  return tuple(begin + (2 * i * distance + steps) // (2 * steps) for i in range(steps + 1))
