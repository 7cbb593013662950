"""Which fragments fill a gap that is longer than one fragment: coarse ones first, then finer ones.

A fragment between two known frames has its first and last frame there. The masks tell the network
a frame's position in the fragment alone, not how far apart the frames of the fragment lie: it
fills in at the strides it was trained at.
"""

import itertools
from collections.abc import Sequence

# Frames of the video that are those of a fragment, in order; the first and the last are known.
Places = tuple[int, ...]


def longest_gap(num_frames: int, strides: Sequence[int]) -> int:
  """Unknown frames between two known ones that fragments at these strides fill.

  Args:
    num_frames: F.
    strides: of training, from one frame of a fragment to the next.

  Raises:
    ValueError: strides that do not begin with 1, do not rise, or of which one is wider than a
      fragment at the one before it, so that nothing could fill its steps.
  """
  steps = num_frames - 1
  if not strides or strides[0] != 1:
    raise ValueError(f"The strides must begin with 1, not be {tuple(strides)}.")
  for finer, coarser in itertools.pairwise(strides):
    if not finer < coarser <= steps * finer:
      raise ValueError(
        f"After a stride of {finer} comes one of {finer + 1} to {steps * finer}, which fragments "
        f"of {num_frames} frames fill, not {coarser}."
      )
  return steps * strides[-1] - 1


def plan(gap: int, num_frames: int, strides: Sequence[int]) -> list[list[Places]]:
  """Levels of fragments between frame 0 and frame gap + 1; a level's ends are known before it.

  A fragment is at the finest stride that spans its ends. It takes as few steps as that stride
  allows, as equal as whole frames allow: all of that stride where it divides the distance, else
  some a little shorter. The network was trained at the stride itself, and sees only the ends.

  Raises:
    ValueError: as `longest_gap`, or a gap that is longer.
  """
  if gap > (longest := longest_gap(num_frames, strides)):
    trained = f"stride{'s' * (len(strides) > 1)} {', '.join(map(str, strides))}"
    raise ValueError(
      f"A gap of {gap} frames is too long: the longest gap is {longest}, by fragments of "
      f"{num_frames} frames trained at {trained}. Train at wider ones too "
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
