"""The flags of GLOBER's drawing modes, as a command line that gives none leaves them."""

import types

OPTIONS = {
  "class_label": None, "num_videos": 2, "num_frames": None, "frame_times": None, "start": 0.0,
  "end": None, "sampler": None, "steps": None, "guidance_scale": None, "seed": 0, "input": None,
  "prompts": None, "nearest": False,
}  # fmt: skip


def options(**changes: object) -> types.SimpleNamespace:
  return types.SimpleNamespace(**(OPTIONS | changes))
