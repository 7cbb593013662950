"""The start table's estimate against measured speeds of the demo."""

import types

import pytest

from configs import glober_digits
from experiments.setup import checks
from experiments.train import plan, start_table
from videodiff_jax.training import partitioning

pytestmark = pytest.mark.heavy

# FLOP/s on two cores of kl_vae (700 steps of 8.23 GFLOP in 90 s), autoencoder (2060 of 11.0 and 40
# of 37.2 in 360 s) and generator (500 of 22.1 in 85 s). Speeds outlast a change of the recipe.
MEASURED = (64e9, 67e9, 130e9)


def test_minutes_of_the_demo_are_right_within_a_factor_of_two(monkeypatch, tmp_path) -> None:
  logged = []
  monkeypatch.setattr(start_table.logging, "info", lambda text, *args: logged.append(text % args))
  monkeypatch.setattr(start_table, "cores", lambda: 2)
  config, mesh = glober_digits.get_config(), partitioning.make_mesh()  # eight that share two cores
  start_table.show(config, tmp_path, mesh, types.SimpleNamespace(num_videos=4500))
  start_table.show(config, tmp_path, mesh, types.SimpleNamespace(num_videos=4500), "generator")
  table, of_one = logged
  assert "generator" in of_one and "kl_vae" not in of_one
  assert "minutes (estimate)" in table and "The minutes are an estimate" in table
  rows = {line.split()[0]: line.split() for line in table.splitlines()}
  for name, speed in zip(config.stages, MEASURED, strict=True):
    _, _, steps, done, estimate, _ = rows[name]
    assert (int(steps), int(done)) == (config.train[name].steps, 0)
    minutes = plan.flops_between(config, name, 0, int(steps)) / speed / 60
    assert minutes / 2 < float(estimate) < 2 * minutes


def test_adversarial_steps_count_from_where_they_begin() -> None:
  config = glober_digits.get_config("smoke")
  config.loss.update(lambda_cra=0.1)
  config.loss.cra.start_step = 3
  counted = [plan.flops_between(config, "autoencoder", 0, steps) for steps in (1, 3, 4, 9)]
  plain, judged = counted[0], plan.stage_figures(config, "autoencoder").flops_per_step
  assert 0 < plain < judged
  assert counted == [plain, 3 * plain, 3 * plain + judged, 3 * plain + 6 * judged]
  assert plan.flops_between(config, "autoencoder", 2, 4) == plain + judged
  assert plan.flops_between(config, "autoencoder", 4, 4) == 0


def test_a_disk_too_small_for_the_checkpoints_is_told(monkeypatch, tmp_path) -> None:
  config, mesh = glober_digits.get_config("smoke"), partitioning.make_mesh()
  store = types.SimpleNamespace(num_videos=40)
  sizes = [plan.stage_figures(config, name).state_bytes for name in config.stages]
  needed = sum(sizes) * config.train.kl_vae.keep
  for free in (needed + 1, needed - 1):
    usage = types.SimpleNamespace(free=free)
    monkeypatch.setattr(start_table.shutil, "disk_usage", lambda path, usage=usage: usage)
    if free > needed:
      start_table.show(config, tmp_path / "new" / "run", mesh, store)
    else:
      with pytest.raises(checks.UserError, match=r"checkpoints need about .*train.<stage>.keep"):
        start_table.show(config, tmp_path / "new" / "run", mesh, store)


def test_a_cpu_of_more_cores_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
  speeds = []
  for cores in (2, 6):
    monkeypatch.setattr(start_table, "cores", lambda cores=cores: cores)
    speeds.append(start_table.device_speed())
  assert speeds[1] == pytest.approx(3 * speeds[0])
