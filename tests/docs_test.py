"""README and docs: their commands are ones that there are, and -m slow runs those that can be run.

A comment above a block, as `<!-- needs: a GPU -->`, says why it is not run. The others are run in
a copy of the checkout, page after page; what trains does so by its configuration's `:smoke`.
"""

import functools
import importlib.util
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

import videodiff_jax
from data import prepare
from docs.make import __main__ as make
from docs.make import commands as made
from experiments import main
from experiments.benchmarks.accelerator import __main__ as accelerator
from experiments.commands import modes
from tests.helpers import ROOT, setup_arguments

# In the order in which a reader meets them: later pages go on with the runs of earlier ones.
FIRST = ("README.md", "docs/quickstart.md", "docs/your_videos.md")
PAGES = (*FIRST, *sorted({
  str(path.relative_to(ROOT)) for path in [*(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md"]
} - {*FIRST}))  # fmt: skip
BLOCK = re.compile(r"(?:^<!-- needs: (.+?) -->\n)?^```(bash|python)\n(.*?)^```", re.M | re.S)
MAIN, PREPARE, CONVERT = "experiments.main", "data.prepare", "videodiff_jax.pretrained.convert"
WITHOUT_WORKDIR = ("train", "plan", "compare", "benchmark", "doctor")


class Block(NamedTuple):
  page: str
  needs: str
  language: str
  text: str


def blocks(page: str) -> list[Block]:
  return [Block(page, *found) for found in BLOCK.findall((ROOT / page).read_text())]


def lines(block: Block) -> list[list[str]]:
  """The words of every command of a block; '&&' joins two."""
  text = block.text.replace("\\\n", " ")
  words = [shlex.split(line, comments=True) for line in re.split(r"\n|&&(?=[^\"]*$)", text)]
  return [line for line in words if line]


def commands(language: str = "bash") -> list[tuple[str, list[str]]]:
  found = [block for page in PAGES for block in blocks(page) if block.language == language]
  return [(block.page, words) for block in found for words in lines(block)]


def module_of(words: list[str]) -> tuple[str, list[str]]:
  """The module that a command runs, under whatever launches it, and its arguments."""
  if words[0] == "gcloud":
    (inner,) = [word.partition("=")[2] for word in words if word.startswith("--command=")]
    return module_of(shlex.split(inner.split("&& ")[-1]))
  while re.match(r"[A-Z]+=", words[0]) and len(words) > 1:  # a variable of the command
    words = words[1:]
  for i, word in enumerate(words):
    if word == "videodiff":
      return MAIN, words[i + 1 :]
    if word == "python" and words[i + 1] == "-m":
      return words[i + 2], words[i + 3 :]
  return words[0], words[1:]


@functools.cache
def flags_of(module: str) -> set[str]:
  return {name for name, _, _ in made.of_module(module)} | {"help", "verbosity"}


def options(arguments: list[str]) -> dict[str, str]:
  return dict(word.lstrip("-").partition("=")[::2] for word in arguments if word[:2] == "--")


def check(module: str, arguments: list[str], systems: dict[str, str]) -> None:
  """Raises what the command would end with at once, or AssertionError.

  Args:
    module: what is run.
    arguments: of it.
    systems: of each workdir that an earlier command made.
  """
  given = options(arguments)
  if module == MAIN:
    check_main(arguments, given, systems)
  elif module in (PREPARE, CONVERT):
    assert given.keys() <= flags_of(module) and not [w for w in arguments if w[:2] != "--"]
    assert given.get("dataset", "bars") in {*prepare.DATASETS, "bars"}
    if given.get("kind") == "lgcvd":
      systems[given["out"]] = "lgcvd"
  elif module == "experiments.benchmarks.accelerator":
    accelerator.parse(arguments)
  elif module in ("pip", "pytest"):
    check_tool(module, arguments)
  else:
    check_script(module, arguments)


def check_script(name: str, arguments: list[str]) -> None:
  known = ("export", "pre-commit", "mkdocs", "bash", "docs.make", "docs.make.pictures")
  if name in ("sbatch", "kubectl") or name.startswith("launch/"):
    files = [word for word in (name, *arguments) if word.startswith("launch/")]
    assert files and all((ROOT / file).is_file() for file in files), files
  else:
    assert name in known


def check_main(arguments: list[str], given: dict[str, str], systems: dict[str, str]) -> None:
  argv = [MAIN, *arguments]
  with flagsaver.flagsaver(), pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, "argv", argv)  # where ml_collections reads --config.a.b=value
    patch.chdir(ROOT)
    words = main.parse_flags(argv)[1:]
    mode, config = flags.FLAGS.mode, flags.FLAGS.config
    modes.check_flags(mode, config.after if mode == "train" and config is not None else ())
    assert bool(words) == (mode == "compare")
    workdir = given.get("workdir")
    if config is not None and workdir:
      systems[workdir] = config.system
    if mode == "export":
      systems[given["out"]] = systems[workdir]
    if mode not in WITHOUT_WORKDIR and "table" not in given:
      modes.check_system(systems[workdir])
      main.mode_function(systems[workdir], mode)


def check_tool(module: str, arguments: list[str]) -> None:
  if module == "pip":
    extras = [
      word for name in re.findall(r"\[(.*)\]", " ".join(arguments)) for word in name.split(",")
    ]
    assert {*extras} <= setup_arguments()["extras_require"].keys()
  paths = [word for word in arguments if word.startswith(("tests", "."))]
  assert all((ROOT / path.partition("[")[0]).exists() for path in paths), paths


@pytest.fixture(scope="module")
def shipped() -> dict[str, str]:
  folders = (ROOT / "experiments" / "pretrained").glob("*/config.json")
  found = {str(f.parent.relative_to(ROOT)): json.loads(f.read_text())["system"] for f in folders}
  assert found
  return found


def test_every_command_is_one_that_there_is(shipped: dict[str, str]) -> None:
  bad, systems = [], dict(shipped)
  for page, words in commands():
    try:
      check(*module_of(words), systems)
    except (Exception, SystemExit) as error:
      bad.append(f"{page}: {shlex.join(words)}: {type(error).__name__} {error}")
  assert not bad, "\n".join(bad)


@pytest.mark.parametrize(
  "line",
  [
    "python -m experiments.main --config=configs/glober_digits.py --wordir=x",
    "python -m experiments.main --config=configs/glober_digits.py:nope --workdir=x",
    "videodiff --mode=plan --config=configs/glober_digits.py --gap=3",
    "videodiff --mode=sample --workdir=experiments/pretrained/glober_digits --past=2",
    "videodiff --mode=predict --workdir=experiments/pretrained/glober_digits",
    "srun python -m experiments.main --mode=sample --workdir=runs/never_trained",
    "python -m data.prepare --dataset=nope --out=x",
    "python -m data.prepare --dataset=bair --sorce=x --out=x",
    "pip install -e '.[nope]'",
    "pytest tests/nope",
    "nope",
  ],
)
def test_a_wrong_command_is_seen(shipped: dict[str, str], line: str, capsys) -> None:
  with pytest.raises((Exception, SystemExit)):
    check(*module_of(shlex.split(line)), dict(shipped))


def test_there_is_something_to_test() -> None:
  found = commands()
  assert len(found) > 60 and {module_of(words)[0] for _, words in found} >= {MAIN, PREPARE, CONVERT}
  assert {block.needs for page in PAGES for block in blocks(page)} > {""}
  whole = "".join((ROOT / page).read_text() for page in PAGES)
  assert len(re.findall(r"^<!-- needs: ", whole, re.M)) == sum(
    bool(block.needs) for page in PAGES for block in blocks(page)
  )


def test_python_blocks_compile() -> None:
  for page in PAGES:
    for block in blocks(page):
      if block.language == "python":
        compile(block.text, page, "exec")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
  """Files that it names; mkdocs checks the anchors of its own pages."""
  text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.S)
  for target in re.findall(r"\]\(([^)#]+)", text):
    if not target.startswith("http"):
      assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_generated_pages_are_current() -> None:
  for path, text in make.made().items():
    assert path.read_text() == text, f"{path} is old: python -m docs.make"


def test_pictures_are_small_and_can_be_made() -> None:
  assert importlib.import_module("docs.make.pictures").main
  for path in (ROOT / "docs" / "pictures").iterdir():
    assert path.stat().st_size < 300_000, path


def test_the_data_set_of_the_page_can_be_added(tmp_path, monkeypatch) -> None:
  (block, *_) = [b for b in blocks("docs/adding_a_dataset.md") if b.language == "python"]
  file = tmp_path / "bars.py"
  file.write_text(block.text)
  spec = importlib.util.spec_from_file_location("bars", file)
  module = importlib.util.module_from_spec(spec)
  monkeypatch.setitem(sys.modules, "bars", module)
  spec.loader.exec_module(module)
  monkeypatch.setitem(prepare.DATASETS, "bars", module.Bars)
  store = prepare.ensure("bars", tmp_path / "store", num_videos=4, num_frames=5)
  assert "train: 3 videos, 15 frames" in prepare.summarise(store)


def test_the_release_has_one_number_and_one_date() -> None:
  released = re.findall(r"^## (\d.*) - (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
  citation = (ROOT / "CITATION.cff").read_text()
  cited = [re.search(rf"^{key}: (.*)$", citation, re.M)[1] for key in ("version", "date-released")]
  assert released[0] == tuple(cited)
  assert released[0][0] == videodiff_jax.__version__


# ---- What is run


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory) -> pathlib.Path:
  """A copy of what git knows of, with videos to give."""
  folder = tmp_path_factory.mktemp("checkout")
  known = subprocess.run(
    ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
  )
  for name in known.stdout.splitlines():
    if (ROOT / name).is_file():
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(ROOT / name, folder / name)
  from videodiff_jax.inputs.video_io import write_mp4

  rng = np.random.default_rng(0)
  for i in range(12):
    frames = np.zeros((24, 48, 64, 3), np.uint8) + rng.integers(60, size=3, dtype=np.uint8)
    for j, frame in enumerate(frames):
      frame[10 + j : 20 + j, 2 * i + j : 2 * i + j + 12] = (200, 40 * (i % 5), 90)
    target = folder / ("clip.mp4" if i == 11 else f"VIDEOS/{i:02d}.mp4")
    target.parent.mkdir(exist_ok=True)
    write_mp4(target, frames, fps=12)
  return folder


def in_small(words: list[str]) -> list[str]:
  """A training command by its configuration's `:smoke`, a prepared store at its 32 pixels."""
  module, arguments = module_of(words)
  given = options(arguments)
  if module == PREPARE and "size" in given:
    return [*(word for word in words if not word.startswith("--size=")), "--size=32"]
  trains = given.get("mode", "train") == "train" and module == MAIN and "config" in given
  if not trains or any(name.endswith(".steps") for name in given):
    return words
  name, _, variants = given["config"].partition(":")
  if "smoke" not in variants.split(","):
    variants = ",".join(filter(None, (variants, "smoke")))
  return [f"--config={name}:{variants}" if w.startswith("--config=") else w for w in words]


@pytest.fixture(scope="module")
def run(sandbox: pathlib.Path) -> Any:
  """Runs words in the sandbox, each line once."""
  done: set[str] = set()
  environment = os.environ | {
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
    "PYTHONPATH": str(sandbox),
    # As conftest's, but with the devices that a person's machine has.
    "XLA_FLAGS": re.sub(r"--xla_force_host_\S+", "", os.environ["XLA_FLAGS"]),
  }

  def run(words: list[str]) -> None:
    if words[0] == "videodiff":
      words = [sys.executable, "-c", "from videodiff_jax.checkout import main; main()", *words[1:]]
    elif words[0] == "python":
      words = [sys.executable, *words[1:]]
    if (line := shlex.join(words)) in done:
      return
    done.add(line)
    ended = subprocess.run(
      words, cwd=sandbox, env=environment, capture_output=True, text=True, timeout=1500
    )
    assert ended.returncode == 0, f"{line}\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"

  return run


def can_run() -> Iterator[str]:
  for page in PAGES:
    if any(not block.needs and block.language == "python" for block in blocks(page)) or any(
      "." in module_of(words)[0]
      for block in blocks(page)
      if not block.needs
      for words in lines_of(block)
    ):
      yield page


def lines_of(block: Block) -> list[list[str]]:
  return lines(block) if block.language == "bash" else []


@pytest.mark.slow
def test_the_pictures_are_drawn(run: Any, sandbox: pathlib.Path) -> None:
  names = {path.name for path in (ROOT / "docs" / "pictures").iterdir()} - {"rooms.svg"}
  for name in names:
    (sandbox / "docs" / "pictures" / name).unlink()
  run(["python", "-m", "docs.make.pictures"])
  assert names <= {path.name for path in (sandbox / "docs" / "pictures").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("page", can_run())
def test_what_the_page_says_runs(page: str, run: Any) -> None:
  for block in blocks(page):
    if block.needs:
      continue
    if block.language == "python":
      run(["python", "-c", block.text])
    for words in lines_of(block):
      if "." in module_of(words)[0]:  # a module of ours, not pip or pytest
        run(in_small(words))
