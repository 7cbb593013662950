"""The notebooks for Colab: what they may leave behind, what they ask for, and that they run."""

import json
import os
import pathlib
import re
import shlex
import sys

import jax
import pytest

from experiments import main
from videodiff_jax.training import config_flag

ROOT = pathlib.Path(main.__file__).resolve().parents[1]
PAGES = sorted((ROOT / "experiments" / "colab").glob("*.ipynb"))
NAMES = {
  "CONFIG": "configs/{}_digits.py", "MY_CONFIG": "configs/glober_clips.py", "RUN": "run",
  "RUNS": "runs", "MINE": "mine", "FIRST": "first.mp4", "SIZE": "64", "REPOSITORY": "address",
  "VIDEOS": "40",
}  # fmt: skip


def code_of(page: pathlib.Path) -> list[str]:
  cells = json.loads(page.read_text())["cells"]
  return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def commands_of(page: pathlib.Path) -> list[list[str]]:
  """The words of every command of the page."""
  whole = "\n".join(code_of(page)).replace("\\\n", " ")
  found = [line.strip()[1:] for line in whole.splitlines() if line.strip().startswith("!")]
  names = NAMES | {"CONFIG": NAMES["CONFIG"].format(page.stem)}
  return [shlex.split(re.sub(r"{(\w+)}", lambda name: names[name[1]], line)) for line in found]


def test_there_is_one_for_each_system() -> None:
  assert [page.stem for page in PAGES] == ["glober", "lgcvd"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_nothing_of_a_run_is_left_in_it(page: pathlib.Path) -> None:
  notebook = json.loads(page.read_text())
  assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
  assert set(notebook["metadata"]) == {"accelerator", "colab", "kernelspec", "language_info"}
  ids = [cell["id"] for cell in notebook["cells"]]
  assert len(set(ids)) == len(ids)
  for cell in notebook["cells"]:
    assert not cell["metadata"]
    if cell["cell_type"] == "code":
      assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_jax_is_left_alone_and_its_device_to_the_commands(page: pathlib.Path) -> None:
  first, *others = code_of(page)
  assert "pip" not in first and "jax.devices()" in first
  for cell in (first, *others):
    for line in cell.splitlines():
      assert not re.match(r"\s*(import|from) (jax|videodiff_jax)\b", line), line
  (install,) = [cell for cell in others if "pip install" in cell]
  assert re.search(r'PINNED = \("jax", "jaxlib", "libtpu"', install)
  assert "pip install --quiet --constraint=/tmp/pinned.txt" in install
  assert install.index("if not SMOKE") < install.index("git clone") < install.index("pip install")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_is_one_that_there_is(page: pathlib.Path, monkeypatch) -> None:
  monkeypatch.chdir(ROOT)
  modes = []
  for words in commands_of(page):
    if words[:3] != ["python", "-m", "experiments.main"]:
      continue
    config_flag.check_arguments(words[2:], ROOT)
    options = dict(word.lstrip("-").partition("=")[::2] for word in words[3:])
    modes.append(options.get("mode", "train"))
    assert modes[-1] in main._MODES
    assert all(name in main.flags.FLAGS or name.startswith("config.") for name in options)
  story = {
    "glober": ["train"] * 3 + ["sample", "redraw", "evaluate", "train"],
    "lgcvd": ["train", "predict", "interpolate", "evaluate", "train", "predict"],
  }
  assert modes == ["doctor", *story[page.stem]]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_it_runs_from_its_first_cell_to_its_last(page: pathlib.Path, tmp_path) -> None:
  """With ':smoke', and every command's exit status asked for: a notebook goes on without."""
  nbformat = pytest.importorskip("nbformat", reason="notebooks need the extra test")
  nbclient = pytest.importorskip("nbclient", reason="notebooks need the extra test")
  notebook = nbformat.read(page, as_version=4)
  nbformat.validate(notebook)
  for cell in notebook.cells:
    if cell.cell_type == "code" and "!" in cell.source:
      cell.source += '\nassert not globals().get("_exit_code"), _exit_code'
  # As cheaply compiled as every test, but on one device.
  flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
  environment = os.environ | {
    "XLA_FLAGS": " ".join(flags),
    "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    "VIDEODIFF_JAX_SMOKE": "1",
    "VIDEODIFF_JAX_RUNS": str(tmp_path),
    "PATH": os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]),
  }
  client = nbclient.NotebookClient(
    notebook, timeout=1200, resources={"metadata": {"path": str(ROOT)}}
  )
  client.execute(env=environment)
  code = [cell for cell in notebook.cells if cell.cell_type == "code"]
  assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
  pictures = [
    output
    for cell in code
    for output in cell.outputs
    if output.output_type == "display_data" and {"image/png", "image/gif"} & set(output.data)
  ]
  assert len(pictures) >= 6
  assert (tmp_path / f"{page.stem}_digits" / "report.html").is_file()
