"""report.html: all there is of a run, nothing from elsewhere, and nothing that a file can break."""

import html.parser
import json
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from absl.testing import flagsaver
from PIL import Image

from configs import glober_digits, lgcvd_digits
from experiments import main
from experiments.report import report
from experiments.setup import checks
from experiments.workdirs import provenance
from tests.helpers import ROOT, needs
from videodiff_jax.inputs import video_io
from videodiff_jax.training.checkpoints import CheckpointError
from videodiff_jax.training.workdir import write_config

RESULTS = ROOT / "experiments" / "results"
EVIL = "</pre><script>alert(1)</script>"
VOID = {"img", "meta"}
RED, GREEN = (255, 0, 0), (0, 255, 0)


def plain(colour: tuple[int, int, int], frames: int = 4) -> np.ndarray:
  return np.broadcast_to(np.array(colour, np.uint8), (frames, 32, 32, 3))


def make_glober(folder: pathlib.Path) -> pathlib.Path:
  """A workdir as training, --mode=sample and --mode=evaluate leave one, without its weights."""
  config = glober_digits.get_config("smoke")
  config.condition = "class"
  config.data.name = EVIL
  write_config(folder, config)
  previews = folder / "kl_vae" / "previews"
  previews.mkdir(parents=True)
  lines = [{"step": 2, "loss": 3.5, EVIL: 1.0}, {"step": 4, "loss": float("nan"), EVIL: 2.0}]
  (folder / "kl_vae" / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
  video_io.write_strip(previews / "0000004.png", {"real": plain(RED)})
  video_io.write_gif(previews / "0000004.gif", plain(RED))
  samples = folder / "samples" / "000_sample_seed0"
  samples.mkdir(parents=True)
  np.savez(samples / "samples.npz", labels=np.array([7, 3]))
  (samples / "settings.json").write_text(json.dumps({"mode": EVIL}))
  video_io.write_gif(samples / "all.gif", plain(GREEN))
  video_io.write_strip(samples / "nearest.png", {"sample 0": plain(GREEN)})
  (folder / "evaluations").mkdir()
  shutil.copy(RESULTS / "glober_digits" / "ladder_seed0.json", folder / "evaluations/ladder.json")
  video_io.write_strip(folder / "evaluations" / "sets.png", {"real": plain(RED)})
  video_io.write_gif(folder / "evaluations" / "sets.gif", plain(RED))
  return folder


def make_lgcvd(folder: pathlib.Path) -> pathlib.Path:
  write_config(folder, lgcvd_digits.get_config("smoke"))
  (folder / "evaluations").mkdir()
  shutil.copy(RESULTS / "lgcvd_digits" / "quick.json", folder / "evaluations")
  return folder


class Page(html.parser.HTMLParser):
  """The page's text by element, and its attributes; fails where elements do not nest."""

  def __init__(self, file: pathlib.Path):
    super().__init__()
    self.open: list[str] = []
    self.text: dict[str, list[str]] = {}
    self.attributes: list[tuple[str, str, str]] = []
    self.feed(file.read_text())
    self.close()
    assert not self.open

  def handle_starttag(self, tag: str, attrs: list) -> None:
    self.attributes += [(tag, name, value) for name, value in attrs]
    self.text.setdefault(tag, []).append("")
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag: str) -> None:
    assert self.open.pop() == tag

  def handle_data(self, data: str) -> None:
    if self.open:
      self.text[self.open[-1]][-1] += data

  def all_text(self) -> str:
    return "\n".join("\n".join(texts) for texts in self.text.values())


@pytest.mark.parametrize("make", [make_glober, make_lgcvd])
def test_nothing_is_fetched_and_nothing_runs(make, tmp_path) -> None:
  page = Page(report.write(make(tmp_path)))
  assert not page.text.keys() & {"script", "link", "iframe", "object", "a", "form"}
  for tag, name, value in page.attributes:
    assert not name.startswith("on") and "url(" not in (value or "")
    if name in ("src", "href", "data", "srcset", "poster"):
      assert re.match(r"data:(image/png|image/gif|video/mp4);base64,", value), (tag, name)
  policy = [value for tag, name, value in page.attributes if (tag, name) == ("meta", "content")]
  assert any("default-src 'none'" in value for value in policy)
  assert "@import" not in page.all_text() and "url(" not in page.text["style"][0]


def test_what_glober_s_page_shows(tmp_path) -> None:
  page = Page(report.write(make_glober(tmp_path)))
  said = page.all_text()
  assert {"Commands", "Training: kl_vae", "Evaluation: ladder", "Samples", "Configuration"} <= {
    *page.text["h2"]
  }
  for expected in ("109.3", "generated", "23.51", "half_index_slope", "made before its commands"):
    assert expected in said
  assert len([1 for tag, name, _ in page.attributes if (tag, name) == ("img", "src")]) == 6
  assert any(text.startswith("real, kl_vae, recon") for text in page.text["figcaption"])
  assert "each above its nearest training clip" in page.text["figcaption"]
  assert EVIL in said  # as text: `Page` would have seen elements


def test_training_and_validation_share_a_plot_and_the_best_is_marked(tmp_path) -> None:
  folder = make_glober(tmp_path)
  rows = [
    {"step": 2, "loss": 3.5},
    {"step": 2, "validation_loss": 4.5},
    {"step": 4, "validation_loss": 4.25},
    {"step": 4, "loss": 3.0},
    {"step": 6, "loss": 2.0},
    {"step": 6, "validation_loss": 4.75},
  ]
  (folder / "kl_vae" / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
  page = Page(report.write(folder))
  assert len(page.text["polyline"]) == 2 and len(page.text["circle"]) == 1
  assert page.text["b"] == ["loss"]
  spans = [text.strip() for text in page.text["span"]]
  assert spans == ["training", "validation", "best: 4.25 at step 4"]
  assert "4.25 at 4" in page.text["td"]


def test_what_lgcvd_s_page_shows(tmp_path) -> None:
  folder = make_lgcvd(tmp_path)
  file = folder / "evaluations" / "quick.json"
  record = json.loads(file.read_text())
  row = {"change": 0.0049, "loss_change": 0.0, "loss": 0.25}
  record["scores"]["use_of_condition"] = {"fragment of another video": row}
  record["intervals"]["use_of_condition"] = {"fragment of another video": {"change": [0, 0.0625]}}
  assert "kernel_distance" not in report.write(folder).read_text()  # an old file lacks the figure
  record["scores"]["prediction"]["predicted"]["i3d_kernel_distance"] = 0.375
  record["intervals"]["prediction"] = {"predicted": {"i3d_kernel_distance": [0.25, 0.5]}}
  file.write_text(json.dumps(record))
  page = Page(report.write(folder))
  assert "i3d_kernel_distance" in page.text["th"] and "0.375 [0.25, 0.5]" in page.text["td"]
  assert "0.0049 [0, 0.0625]" in page.text["td"]
  assert any("does not use" in text for text in page.text["p"])
  assert "Frame by frame" in page.text["h3"]
  assert len(page.text["polyline"]) == 2 + 2 + 3 + 2 + 2  # psnr, ssim, brightness, lpips, position
  assert "linear blend" in page.all_text()


def test_clips_are_named_by_class(tmp_path) -> None:
  needs("av")
  folder = make_glober(tmp_path)
  for i in range(2):
    video_io.write_mp4(folder / "samples" / "000_sample_seed0" / f"{i:03d}.mp4", plain(GREEN))
  captions = Page(report.write(folder)).text["figcaption"]
  assert "0: class 7" in captions and "1: class 3" in captions and "all clips" not in captions


def test_clips_are_named_by_prompt(tmp_path) -> None:
  needs("av")
  folder = make_glober(tmp_path)
  samples = folder / "samples" / "000_sample_seed0"
  np.savez(samples / "samples.npz", labels=np.array([10]), prompts=np.array([EVIL]))
  video_io.write_mp4(samples / "000_pre_script.mp4", plain(GREEN))
  assert f"0: {EVIL}" in Page(report.write(folder)).text["figcaption"]


def test_what_is_too_large_is_named(tmp_path, monkeypatch) -> None:
  folder = make_glober(tmp_path)
  whole = report.write(folder).stat().st_size
  monkeypatch.setattr(report, "_MOST_BYTES", (folder / "evaluations/sets.png").stat().st_size - 1)
  page = Page(report.write(folder))
  assert "Left out" in page.text["h2"] and "evaluations/sets.png" in page.all_text()
  assert (folder / "report.html").stat().st_size < whole


def test_a_file_that_is_no_score_file_is_told_and_the_rest_shown(tmp_path) -> None:
  folder = make_lgcvd(tmp_path)
  for name, text in (("a", "{"), ("b", "[1]"), ("c", '{"protocol": "x", "scores": {"y": 3}}')):
    (folder / "evaluations" / f"{name}.json").write_text(text)
  page = Page(report.write(folder))
  for name in "abc":
    assert f"{name}.json is no score file" in page.all_text()
  assert "linear blend" in page.all_text()


def tear_samples(folder: pathlib.Path) -> None:
  file = folder / "samples" / "000_sample_seed0" / "samples.npz"
  file.write_bytes(file.read_bytes()[:100])


def own_score_file(folder: pathlib.Path) -> None:
  record = {"protocol": "x", "scores": {}, "settings": {}}
  (folder / "evaluations" / "x.json").write_text(json.dumps(record))
  video_io.write_gif(folder / "evaluations" / "x.gif", plain(RED))


def add(name: str, data: bytes) -> Callable[[pathlib.Path], None]:
  def into(folder: pathlib.Path) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("ab") as file:
      file.write(data)

  return into


# What kills and people leave in a workdir, and what the page says of it.
FOREIGN: dict[str, tuple[Callable[[pathlib.Path], None], str]] = {
  "half a row": (add("kl_vae/metrics.jsonl", b'\n{"step": 6, "lo'), "Training: kl_vae"),
  "other rows": (add("kl_vae/metrics.jsonl", b'\n[1]\n\n{"note": 1}\n\xff'), "Training: kl_vae"),
  "no row": (add("autoencoder/metrics.jsonl", b"\0\xff"), "Training: kl_vae"),
  "half a command": (add("commands.jsonl", b'{"command": "py'), "before its commands"),
  "other commands": (add("commands.jsonl", b'\n[1]\n{"note": 1}\n'), "before its commands"),
  "torn samples": (tear_samples, "samples.npz cannot be read"),
  "empty samples": (add("samples/001_sample_seed0/samples.npz", b""), "samples.npz cannot be read"),
  "killed while drawing": (add("samples/001.unfinished/.owner", b"1.1.h"), "left by a command"),
  "own folder": (add("samples/holidays/a b.mp4", b"mine"), "holidays"),
  "own video": (add("samples/000_sample_seed0/holiday.mp4", b"mine"), "Samples"),
  "own digits": (add("samples/000_sample_seed0/\u00b3\u00b3\u00b3.mp4", b"mine"), "Samples"),
  "own preview": (add("kl_vae/previews/best one.png", b"mine"), "own previews: best one.png"),
  "half a score file": (add("evaluations/x.json", b'{"prot'), "x.json is no score file"),
  "binary score file": (add("evaluations/x.json", b"\0\xff"), "x.json is no score file"),
  "no scores": (own_score_file, "x.json"),
  "own table": (add("evaluations/x.json", b'{"scores": {"a": "high"}}'), "x.json is no score file"),
  "settings": (add("samples/000_sample_seed0/settings.json", b"\0\xff"), "settings.json"),
  "notes": (add("notes.txt", b"mine"), "Samples"),
  "name that is no text": (lambda folder: add(b"x\xff.json".decode(errors="surrogateescape"), b"")(
    folder / "evaluations"
  ), "Samples"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_no_file_in_a_workdir_costs_more_than_its_own_part(tmp_path, name) -> None:
  folder = make_glober(tmp_path)
  spoil, said = FOREIGN[name]
  spoil(folder)
  page = Page(report.write(folder))
  assert said in page.all_text()
  headings = {"Training: kl_vae", "Evaluation: ladder", "Samples", "Configuration", "Commands"}
  assert headings <= {*page.text["h2"]}
  assert "109.3" in page.all_text()


def test_an_earlier_report_is_written_anew_and_another_s_file_kept(tmp_path) -> None:
  folder = make_lgcvd(tmp_path)
  out = report.write(folder)
  assert report.write(folder) == out
  out.write_text("mine")
  with pytest.raises(checks.UserError, match="was not written by --mode=report"):
    report.write(folder)
  assert out.read_text() == "mine"


def test_no_workdir(tmp_path) -> None:
  with pytest.raises(CheckpointError, match="not a workdir"):
    report.write(tmp_path)


@pytest.mark.parametrize(("mode", "reported"), [("evaluate", True), ("sample", False)])
def test_commands_are_recorded_and_an_evaluation_reported(
  tmp_path, monkeypatch, mode, reported
) -> None:
  folder = make_lgcvd(tmp_path)
  argv = ["main.py", f"--mode={mode}", f"--workdir={folder}"]
  monkeypatch.setattr(sys, "argv", argv)
  monkeypatch.setattr(main, "enable_compilation_cache", lambda: None)
  monkeypatch.setattr(main, "mode_function", lambda system, step: lambda *_: None)
  with flagsaver.flagsaver():
    main.parse_flags(argv)
    main.run()
  (entry,) = provenance.read(folder)
  wanted = f"python -m experiments.main --mode={mode} --workdir={folder}"
  assert entry["command"] == wanted
  assert (folder / "report.html").exists() == reported
  if reported:
    assert wanted in Page(folder / "report.html").all_text()


def browser() -> str | None:
  return next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
  )


@pytest.mark.skipif(not browser(), reason="Chromium is missing: apt-get install chromium")
def test_a_browser_shows_pictures_and_videos_from_disk(tmp_path) -> None:
  """A strip in red and a video in green reach the screen, without a network."""
  needs("av")
  folder = make_glober(tmp_path / "run")
  samples = folder / "samples" / "000_sample_seed0"
  video_io.write_mp4(samples / "000.mp4", plain(GREEN))
  (samples / "all.gif").unlink()
  shot = tmp_path / "shot.png"
  subprocess.run(
    [
      browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
      "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}",
      "--virtual-time-budget=3000", "--window-size=1000,4000", f"--screenshot={shot}",
      report.write(folder).as_uri(),
    ],
    check=True, capture_output=True, timeout=120,
  )  # fmt: skip
  pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
  for colour in (RED, GREEN):
    assert (np.abs(pixels - colour).max(-1) < 40).sum() > 5000, colour
