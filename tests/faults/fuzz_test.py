"""Malformed inputs end in one sentence, or are taken: no traceback, no hang, no nonsense taken."""

import functools
import pathlib

import pytest

from data import prepare as stores
from tests.faults import cases, commands, doors, tried
from tests.faults.ledger import Ledger

SEED = 1
CONFIGURATIONS, FLAGS, MEDIA, TEXTS, SAVED = 550, 400, 30, 350, 200


# ---- a few of each kind, by default


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("faults")
  return stores.ensure("moving_digits", folder / "store", size=16, num_frames=20, num_videos=12)


def told(outcomes: dict[str, commands.Outcome], wanted: tuple[str, ...]) -> None:
  bad = {case: o.said[-600:] for case, o in outcomes.items() if o.verdict not in wanted}
  assert not bad


def test_some_configurations(small) -> None:
  chosen = cases.configurations(SEED, 12)
  told({case: tried.configuration(case, small) for case in chosen}, ("refused", "accepted"))


def test_some_media(tmp_path) -> None:
  whole = tried.whole_media(tmp_path)
  told(tried.media(SEED, whole), ("refused", "accepted"))


def test_some_texts(small, tmp_path) -> None:
  files = files_of_no_workdir(small, tmp_path)
  chosen = [f"{kind} {n}" for kind in ("scores", "curves", "captions", "store") for n in range(4)]
  told({case: tried.text(case, files) for case in chosen}, ("refused", "accepted"))


def files_of_no_workdir(store: pathlib.Path, folder: pathlib.Path) -> dict[str, pathlib.Path]:
  shipped = commands.ROOT / "experiments" / "pretrained" / "glober_digits"
  return {
    "scores": sorted((shipped / "evaluations").glob("*.json"))[0],
    "curves": shipped / "curves.json",
    "captions": tried.captioned(folder / "captioned"),
    "store": store,
  }


# ---- the long form


def record(part: str, function, wanted: list[str], accepted: str = "accepted") -> None:
  """Tries the cases of a part that are left; what is accepted counts as `accepted`."""
  ledger = Ledger()
  for case, outcome in commands.each(function, ledger.left(part, wanted)):
    verdict = accepted if outcome.verdict == "accepted" else outcome.verdict
    ledger.add(part, case, verdict, outcome.told, seconds=round(outcome.seconds, 2))
  ledger.check(part)


@pytest.mark.faults
def test_configurations(store) -> None:
  chosen = cases.configurations(SEED, CONFIGURATIONS)
  record("fuzz: configurations", functools.partial(tried.configuration, store=store), chosen)


@pytest.mark.faults
def test_saved_values(workdirs) -> None:
  function = functools.partial(tried.library, workdirs=workdirs)
  record("fuzz: library", function, cases.saved_values(SEED, SAVED))


@pytest.mark.faults
def test_nonsense_in_configurations(store) -> None:
  function = functools.partial(tried.configuration, store=store)
  record("nonsense", function, list(cases.nonsense()), accepted="silent")


@pytest.mark.faults
def test_nonsense_in_flags(workdirs) -> None:
  function = functools.partial(tried.flags, workdirs=workdirs)
  wanted = [f"{system} {case}" for system, some in cases.NONSENSE_FLAGS.items() for case in some]
  record("nonsense", function, wanted, accepted="silent")


@pytest.mark.faults
def test_flags(workdirs) -> None:
  function = functools.partial(tried.flags, workdirs=workdirs)
  record("fuzz: flags", function, cases.flags(SEED, FLAGS))


@pytest.mark.faults
def test_pictures_and_videos(tmp_path) -> None:
  part, ledger, whole = "fuzz: pictures and videos", Ledger(), tried.whole_media(tmp_path)
  left = [n for n in range(MEDIA) if ledger.left(part, [f"{n} {name}" for name in whole])]
  for number, outcomes in commands.each(functools.partial(tried.media, whole=whole), left):
    if isinstance(outcomes, commands.Outcome):  # of the process
      outcomes = dict.fromkeys(whole, outcomes)
    for name, outcome in outcomes.items():
      verdict = "silent" if outcome.said == tried.SHORT else outcome.verdict
      ledger.add(part, f"{number} {name}", verdict, outcome.told)
  ledger.check(part)


@pytest.mark.faults
def test_texts_and_weights(folder, store, workdirs, tmp_path) -> None:
  exported = folder / "exported"
  if not exported.exists():
    argv = [f"--workdir={workdirs['glober']}", f"--out={exported}"]
    made = doors.draw(["--mode=export", *argv])
    assert made.verdict == "accepted", made.said
  workdir = workdirs["glober"]
  files = files_of_no_workdir(store, tmp_path) | {
    "config": workdir, "metrics": workdir, "commands": workdir, "workdir": workdir,
    "exported_weights": exported, "exported_manifest": exported,
    "npz": next(workdir.glob("samples/*/samples.npz")),
  }  # fmt: skip
  wanted = [f"{tried.TEXTS[i % len(tried.TEXTS)]} {i}" for i in range(TEXTS)]
  record("fuzz: texts and weights", functools.partial(tried.text, files=files), wanted)
