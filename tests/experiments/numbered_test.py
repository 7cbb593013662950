"""Names by counting: none is given twice, and nothing that was drawn is lost."""

import os
import pathlib
import time

import numpy as np
import pytest

from experiments.sampling import glober_samples
from experiments.setup import checks
from experiments.workdirs import numbered, outputs
from videodiff_jax import whole_files

MODES = ("sample", "redraw", "reconstruct", "predict", "interpolate")


def draw(workdir: pathlib.Path, mode: str = "sample", seed: int = 0) -> str:
  """The name that the next one gets."""
  with numbered.SampleFolder(workdir, mode, seed, 1) as place:
    np.savez(place.unfinished / numbered.SAMPLES, global_features=np.zeros(1))
    return place.finish().name


def names(folder: pathlib.Path) -> list[str]:
  return sorted(path.name for path in folder.iterdir())


def left(samples: pathlib.Path, number: int, owner: str, drawn: bool = False) -> pathlib.Path:
  """What a killed process leaves."""
  claim = samples / f"{number:03d}.unfinished"
  claim.mkdir(parents=True)
  (claim / ".owner").write_text(f"{owner} redraw_seed7")
  if drawn:
    (claim / numbered.SAMPLES).touch()
    (claim / ".unfinished.1.a.gif").touch()
  return claim


def gone() -> str:
  """The owner of a process that has ended."""
  return f"{2**22 + 1}.1.{whole_files.owner().split('.', 2)[2]}"


@pytest.mark.parametrize("mode", MODES)
def test_the_next_number_is_above_the_highest(tmp_path, mode) -> None:
  samples = tmp_path / "samples"
  assert [draw(tmp_path, mode, seed) for seed in (0, 5)] == [
    f"000_{mode}_seed0",
    f"001_{mode}_seed5",
  ]
  (samples / f"000_{mode}_seed0").rename(tmp_path / "elsewhere")
  for foreign in ("2024_holiday", "notes", "best"):
    (samples / foreign).mkdir()
  (samples / "7_notes.txt").touch()
  assert draw(tmp_path, mode) == f"002_{mode}_seed0"
  assert not list(samples.rglob(".owner")) and not list(samples.glob("*.unfinished"))


def test_two_processes_at_once_get_different_numbers(tmp_path) -> None:
  """Each claims, waits for the other, and draws."""

  def work() -> None:
    evaluation = numbered.files(tmp_path / "evaluations", "quick.json", "quick.png")
    with numbered.SampleFolder(tmp_path, "sample", 0, 1) as place, evaluation as made:
      for file in made:
        file.touch()
      deadline = time.monotonic() + 60
      while len(list(tmp_path.glob("*/*.unfinished"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
      time.sleep(0.2)
      place.finish()

  children = []
  for _ in range(2):
    if not (child := os.fork()):
      try:
        work()
        os._exit(0)
      finally:
        os._exit(1)
    children.append(child)
  assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
  assert names(tmp_path / "samples") == ["000_sample_seed0", "001_sample_seed0"]
  written = ["quick.json", "quick.png", "quick_2.json", "quick_2.png"]
  assert names(tmp_path / "evaluations") == written


def test_one_that_finishes_meanwhile_takes_no_other_s_number(tmp_path, monkeypatch) -> None:
  """Between looking for the highest number and claiming the next."""
  claim, others = pathlib.Path.mkdir, iter(["000_redraw_seed1"])

  def mkdir(path: pathlib.Path, *arguments: object, **options: object) -> None:
    if path.suffix == numbered.UNFINISHED and (other := next(others, None)):
      claim(path.with_name(other))
    claim(path, *arguments, **options)

  monkeypatch.setattr(pathlib.Path, "mkdir", mkdir)
  assert draw(tmp_path) == "001_sample_seed0"


def test_what_a_kill_left_goes_and_what_was_drawn_gets_its_name(tmp_path, caplog) -> None:
  samples = tmp_path / "samples"
  left(samples, 0, gone())
  left(samples, 1, gone(), drawn=True)
  (samples / "mine.unfinished").mkdir()
  running = left(samples, 2, whole_files.owner())
  elsewhere = left(samples, 3, "1.1.another-host")
  assert draw(tmp_path) == "004_sample_seed0"
  kept = ["001_redraw_seed7", running.name, elsewhere.name, "004_sample_seed0", "mine.unfinished"]
  assert names(samples) == kept
  assert names(samples / "001_redraw_seed7") == [numbered.SAMPLES]
  assert "001_redraw_seed7 holds all samples" in caplog.text


def test_an_error_while_drawing_leaves_nothing_and_one_after_it_what_was_drawn(
  tmp_path, caplog
) -> None:
  with pytest.raises(ZeroDivisionError), numbered.SampleFolder(tmp_path, "sample", 0, 1):
    1 / 0  # noqa: B018
  assert not names(tmp_path / "samples")
  with pytest.raises(OSError), numbered.SampleFolder(tmp_path, "sample", 0, 1) as place:
    (place.unfinished / numbered.SAMPLES).touch()
    raise OSError
  assert "000_sample_seed0 holds all samples" in caplog.text
  assert names(tmp_path / "samples") == ["000_sample_seed0"]


def test_the_last_sample_is_the_newest_whole_one(tmp_path, caplog) -> None:
  for number, seed, age in ((5, 1, 30), (1, 2, 10), (7, 3, 20)):
    draw(tmp_path, seed=seed)
    folder = tmp_path / "samples" / f"{number:03d}_sample_seed{seed}"
    max((tmp_path / "samples").iterdir(), key=os.path.getctime).rename(folder)
    os.utime(folder / numbered.SAMPLES, (10**9 - age, 10**9 - age))
  (tmp_path / "samples" / "009_sample_seed9").mkdir()  # holds none
  assert glober_samples.newest_samples(tmp_path).parent.name == "001_sample_seed2"
  (tmp_path / "samples" / "001_sample_seed2" / numbered.SAMPLES).write_bytes(b"PK torn")
  assert glober_samples.newest_samples(tmp_path).parent.name == "007_sample_seed3"
  assert "001_sample_seed2/samples.npz is damaged" in caplog.text


def test_files_share_the_number_above_all_of_theirs(tmp_path) -> None:
  for numbers in (("quick.json", "sets.png"), ("quick_2.json", "sets_2.png")):
    with numbered.files(tmp_path, "quick.json", "sets.png", "never.gif") as made:
      assert not list(tmp_path.glob("*.*g*")) or numbers[0] == "quick_2.json"
      for file in made[:2]:
        file.touch()
    assert {*numbers} <= {*names(tmp_path)}
  (tmp_path / "quick.json").unlink()
  (tmp_path / "sets_3.png").touch()  # of one that was interrupted
  with numbered.files(tmp_path, "quick.json", "sets.png") as made:
    assert made[0].name == "quick_4.json"
  assert names(tmp_path) == ["quick_2.json", "sets.png", "sets_2.png", "sets_3.png"]


def test_what_cannot_be_written_is_told_before_drawing(tmp_path, monkeypatch) -> None:
  with pytest.raises(checks.UserError, match=r"need about 1e\+12 MB, but its disk has .* MB free"):
    with numbered.SampleFolder(tmp_path, "sample", 0, 10**18):
      raise AssertionError("drawn")
  assert not names(tmp_path)
  for mode in ("sample", "train", "report"):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(checks.UserError, match=f"{tmp_path} cannot be written to"):
      outputs.check(tmp_path, mode)
    with pytest.raises(checks.UserError, match=f"{tmp_path} cannot be written to"):
      outputs.check(tmp_path / "new", "train")
