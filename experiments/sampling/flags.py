"""The flags of sampling."""

from absl import flags

from videodiff_jax import typed

_MOST = 100_000  # upper bound of every count
_GIVEN_VIDEO = {"redraw", "reconstruct", "predict", "interpolate"}
_DRAWING = {"sample"} | _GIVEN_VIDEO
_BY_TIME = {"sample", "redraw", "reconstruct"}
_BY_SEED = _DRAWING - {"redraw"}  # which takes the sample's own
# Flag -> the modes that read it.
READ_BY = {
  "num_videos": _BY_SEED,
  "num_frames": _BY_TIME | {"predict"},
  "frame_times": _BY_TIME,
  "start": _BY_TIME,
  "end": _BY_TIME,
  "guidance_scale": _BY_TIME,
  "sampler": _DRAWING,
  "steps": _DRAWING,
  "class_label": {"sample"},
  "prompts": {"sample"},
  "nearest": {"sample"},
  "trajectories": {"predict", "interpolate"},
  "past": {"predict", "interpolate"},
  "future": {"interpolate"},
  "gap": {"interpolate"},
  "seed": _BY_SEED,
  "input": _GIVEN_VIDEO,
}

typed.define_integer(
  "num_videos", None, "Videos to draw; config.sample.num_videos by default.", 1, _MOST
)
typed.define_integer(
  "num_frames",
  None,
  "GLOBER: frames per clip, evenly spaced; as in training by default. LGC-VD: frames to predict, "
  "or frames of a new video; config.sample.num_frames by default.",
  1,
  _MOST,
)
typed.define_numbers("frame_times", "GLOBER: comma-separated tau in [0, 1], any order.", 0.0, 1.0)
typed.define_float("start", 0.0, "GLOBER: first tau of --num_frames.", 0.0, 1.0)
typed.define_float(
  "end", None, "GLOBER: last tau of --num_frames; as in training by default.", 0.0, 1.0
)
flags.DEFINE_string("sampler", None, "ddim, ddpm, dpmpp_2m or unipc, for every stage.")
typed.define_integer("steps", None, "Sampling steps, for every stage.", 1, _MOST)
typed.define_float(
  "guidance_scale", None, "GLOBER: guidance scale s of both stages; 1 is unguided.", 0.0, 1000.0
)
typed.define_integer("class_label", None, "GLOBER: class of all clips.", 0, _MOST)
flags.DEFINE_string(
  "prompts",
  None,
  'GLOBER with text: prompts, as "one;another" or a file with one a line; captions of the test '
  "split by default.",
)
flags.DEFINE_bool(
  "nearest",
  False,
  "Writes nearest.png, each clip above the nearest of up to 2000 training clips, which are read.",
)
typed.define_integer(
  "trajectories", None, "LGC-VD: samples of each video; config.sample by default.", 1, _MOST
)
typed.define_integer("past", None, "LGC-VD: given frames before the drawn ones.", 1, _MOST)
typed.define_integer("future", None, "LGC-VD: given frames after a gap.", 1, _MOST)
typed.define_integer("gap", None, "LGC-VD: frames to interpolate.", 1, _MOST)
typed.define_seed(0, "Seed of the samples.")
typed.define_path("input", None, "A video file; for redraw a sample's .npz.")
