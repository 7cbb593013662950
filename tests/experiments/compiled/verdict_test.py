"""When a program fits, and which flags make one smaller."""

import dataclasses
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from ml_collections import ConfigDict

from configs import glober_sky, lgcvd_bair
from experiments.compiled import fit, verdict
from experiments.compiled.fit import set_key
from experiments.compiled.targets import Target

V5E = Target("v5e:2x2", (), 16e9, 1.5e9, "libtpu")
H100 = Target("h100:8", (), 85e9, None, "jaxlib")


@pytest.mark.parametrize(
  ("target", "total", "expected"),
  [
    (V5E, 14.3e9, "fits"),
    (V5E, 14.5e9, "tight"),
    (H100, 58.7e9, "fits"),  # .75 of 85 GB, less 5
    (H100, 58.8e9, "tight"),
    (H100, 76.4e9, "tight"),
    (H100, 76.6e9, "does not fit"),
  ],
)
def test_a_verdict_leaves_room(target: Target, total: float, expected: str) -> None:
  assert verdict.of_bytes(target, total) == expected


def test_a_refusal_says_how_much_it_would_have_taken() -> None:
  message = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    "Used 21.50G of 15.75G hbm. Exceeded hbm capacity by 5.75G."
  )
  assert verdict.refused(RuntimeError(message)) == 21.5 * 2**30
  before_scheduling = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
    "required for HLO temporaries (240.00G) exceeds available HBM (15.75G). HLO module: jit_step."
  )
  assert verdict.refused(RuntimeError(before_scheduling)) == 240 * 2**30
  assert verdict.refused(RuntimeError("RESOURCE_EXHAUSTED: another one")) == float("inf")
  assert verdict.refused(RuntimeError("INTERNAL: a failure of the compiler")) is None


def test_what_is_tried_keeps_the_batch_whole_first() -> None:
  config = glober_sky.get_config()
  config.remat = "none"
  found = verdict.remedies(config, "autoencoder", 8)
  assert found == [
    "--config.remat=blocks",
    "--config.train.autoencoder.accumulate=4",
    "--config.mesh.fsdp=8",
    "--config.train.autoencoder.batch_size=128",
  ]
  for flag in found:
    set_key(config, *flag.removeprefix("--config.").split("="))
  assert (config.remat, config.mesh.fsdp, config.train.autoencoder.accumulate) == ("blocks", 8, 4)
  # 128 clips are 16 a device, in 4 parts.
  assert verdict.remedies(config, "autoencoder", 8)[0].endswith("accumulate=8")


def test_a_sampler_takes_fewer_rows() -> None:
  assert verdict.remedies(glober_sky.get_config(), "sample_frames", 8) == [
    "--config.sample.frames_per_chunk=16"
  ]
  assert verdict.remedies(lgcvd_bair.get_config(), "sample_fragment", 8) == [
    "--config.sample.videos_per_chunk=16"
  ]


def test_a_search_ends_with_the_flags_that_fit(monkeypatch) -> None:
  """A made-up program of 40 GB, divided by the parts of its batch and by the devices of fsdp."""
  config = glober_sky.get_config()
  config.train.autoencoder.accumulate = 1
  target = dataclasses.replace(V5E, devices=(None,) * 128)
  asked = []

  def of(config: ConfigDict, target: Target) -> SimpleNamespace:
    asked.append((config.train.autoencoder.accumulate, config.mesh.fsdp))
    total = 40e9 / config.train.autoencoder.accumulate / config.mesh.fsdp
    found = "fits" if total < 1e9 else "does not fit"
    return SimpleNamespace(verdict=found, total=total, capacity=target.memory)

  monkeypatch.setattr(fit.programs, "make", lambda config, *_: [Named("autoencoder", config)])
  monkeypatch.setattr(fit.figures, "of", lambda program, target: of(program.config, target))
  said = list(fit.search(config, target))
  assert asked == [(1, 1), (2, 1), (2, 128)]
  flags = "--config.train.autoencoder.accumulate=2 --config.mesh.fsdp=128"
  assert said[-1] == f"Fits v5e:2x2: {flags}"
  assert (config.train.autoencoder.accumulate, config.mesh.fsdp) == (1, 1)


def test_a_search_that_finds_nothing_says_so(monkeypatch) -> None:
  """One in vain ends without flags, and another after its last compilation."""
  config, target = glober_sky.get_config(), dataclasses.replace(V5E, devices=(None,) * 8)
  large = SimpleNamespace(verdict="does not fit", total=1e12, capacity=target.memory)
  monkeypatch.setattr(fit.programs, "make", lambda config, *_: [Named("autoencoder", config)])
  monkeypatch.setattr(fit.figures, "of", lambda program, target: large)
  end = "autoencoder does not fit v5e:2x2 "
  assert list(fit.search(config, target))[-1].startswith(f"{end}with any of these")
  config.train.autoencoder.batch_size = 2**20
  assert list(fit.search(config, target))[-1].startswith(f"{end}after 12 compilations")


class Named(NamedTuple):
  name: str
  config: ConfigDict
