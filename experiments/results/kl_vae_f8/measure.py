"""Scores a workdir's KL-VAE at several checkpoints, on a clip of each held-out video.

  python -m experiments.results.kl_vae_f8.measure OUT.json PICTURE.png WORKDIR:STEP WORKDIR:STEP ...

Posterior means through the averaged weights. 'edges' is the mean absolute difference of
neighbouring pixels over that of the true frames: 1 is as sharp as they are.
"""

import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.setup import frame_stores
from videodiff_jax.glober import networks, stages
from videodiff_jax.inputs import clips, video_io
from videodiff_jax.metrics import images, lpips
from videodiff_jax.models.pixels import to_float, to_uint8
from videodiff_jax.training import loop, partitioning
from videodiff_jax.training.checkpoints import Checkpoints
from videodiff_jax.training.workdir import read_config

_SHOWN = 8


def edges(frames: np.ndarray) -> float:
  x = frames.astype(np.float32)
  return float(np.abs(np.diff(x, axis=1)).mean() + np.abs(np.diff(x, axis=2)).mean())


def main(out: str, picture: str, runs: list[str]) -> None:
  rows: dict[str, np.ndarray] = {}
  scores: dict[str, Any] = {}
  for run in runs:
    folder, step = run.rsplit(":", 1)
    workdir = pathlib.Path(folder)
    config = read_config(workdir)
    stage, model = stages.make_stage(config, "kl_vae"), networks.build(config).kl_vae
    store = frame_stores.open_store(config, "test")
    sampler = frame_stores.clip_sampler(config, "clip")
    held_out, _, _ = clips.evaluation_clips(store, sampler, store.num_videos, config.seed)
    frames = held_out.reshape(-1, *held_out.shape[2:])
    checkpoints = Checkpoints(workdir / "kl_vae" / "checkpoints")
    target = loop.abstract_state(stage, config.seed, partitioning.make_mesh())
    params = checkpoints.restore_ema(int(step), target)["ema_params"]

    @jax.jit
    def drawn_of(x: jax.Array, params: dict = params, model: Any = model) -> tuple:
      posterior = model.apply(params, to_float(x), method="encode")
      return to_uint8(model.apply(params, posterior.mean, method="decode")), posterior.std

    drawn, std = (np.asarray(x) for x in drawn_of(frames))
    alex = lpips.load_params("alex")
    a, b = (jnp.asarray(to_float(x)) for x in (drawn, frames))
    distance = lpips.lpips(a, b, "alex", alex)
    scores[f"{workdir.name} at {int(step)} steps"] = {
      "code": checkpoints.meta(int(step))["code"],
      "frames": len(frames),
      "psnr_db": round(float(images.psnr(drawn, frames).mean()), 2),
      "ssim": round(float(images.ssim(drawn, frames).mean()), 4),
      "lpips_alex": round(float(np.mean(distance)), 4),
      "edges": round(edges(drawn) / edges(frames), 3),
      "posterior_std": round(float(std.mean()), 4),
    }
    checkpoints.close()
    shown = np.linspace(0, len(frames) - 1, _SHOWN).round().astype(int)
    rows = {"true": frames[shown]} | rows | {f"{workdir.name}, {int(step)}": drawn[shown]}
  pathlib.Path(out).write_text(json.dumps(scores, indent=2) + "\n")
  video_io.write_strip(picture, rows)
  print(json.dumps(scores, indent=2))


if __name__ == "__main__":
  main(sys.argv[1], sys.argv[2], sys.argv[3:])
