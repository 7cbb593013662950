"""The notebooks for Colab: what they may leave behind, that they install, and that they run."""

import ast
import base64
import io
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import venv
from typing import Any

import jax
import pytest
from packaging.requirements import Requirement
from PIL import Image

from experiments import main
from tests.helpers import ROOT, needs, setup_arguments
from videodiff_jax import config_flag

PAGES = sorted((ROOT / "experiments" / "colab").glob("*.ipynb"))
NAMES = {
  "CONFIG": "configs/{}_digits.py", "MY_CONFIG": "configs/glober_clips.py", "RUN": "run",
  "RUNS": "runs", "MINE": "mine", "FIRST": "first.mp4", "SIZE": "64", "REPOSITORY": "address",
  "VIDEOS": "40", "EXTRAS": "demo",
}  # fmt: skip
# What Colab's runtimes hold (CPU, GPU and TPU v5e-1, August 2026, with Python 3.13), and what of it
# is older than setup.py asks for: the notebooks' command must replace it.
COLAB = {
  "jax": "0.7.2", "jaxlib": "0.7.2", "libtpu": "0.0.21.1", "flax": "0.11.2", "numpy": "2.1.3",
  "orbax-checkpoint": "0.12.4", "grain": "0.2.18",
}  # fmt: skip
TOO_OLD = {"jax", "jaxlib", "libtpu", "flax"}


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


def install_of(page: pathlib.Path) -> tuple[dict[str, str], str]:
  """The extras that the page installs by jax's name of the device, and its command for them."""
  (cell,) = [cell for cell in code_of(page) if "pip install" in cell]
  (extras,) = re.findall(r"^EXTRAS = ({.*})\[BACKEND\]$", cell, re.MULTILINE)
  (command,) = re.findall(r"^ *!(pip install .*)$", cell, re.MULTILINE)
  assert cell.index("if not SMOKE") < cell.index("git clone") < cell.index("pip install")
  return ast.literal_eval(extras), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_it_opens_with_a_picture_of_what_will_come(page: pathlib.Path) -> None:
  """Within the page: Colab resolves no path before the checkout is there."""
  opening = "".join(json.loads(page.read_text())["cells"][0]["source"])
  (picture,) = re.findall(r"!\[.+?\]\(data:image/png;base64,(.+?)\)", opening)
  assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (1040, 256)
  assert len(picture) < 20_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_device_is_left_to_the_commands(page: pathlib.Path) -> None:
  first, *others = code_of(page)
  assert "pip" not in first and "jax.devices()" in first and "BACKEND = " in first
  for line in "\n".join([first, *others]).splitlines():
    assert not re.match(r"\s*(import|from) (jax|videodiff_jax)\b", line), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_it_installs_its_own_jax_for_the_device(page: pathlib.Path) -> None:
  extras, command = install_of(page)
  assert command == 'pip install --quiet -e ".[{EXTRAS}]"'
  assert extras == {"cpu": "demo", "gpu": "demo,cuda12", "tpu": "demo,tpu"}
  given = setup_arguments()
  assert {name for names in extras.values() for name in names.split(",")} <= {
    *given["extras_require"]
  }
  assert "3.13" in Requirement(f"python{given['python_requires']}").specifier
  bounds = {r.name: r.specifier for r in map(Requirement, given["install_requires"])}
  out = {name for name, version in COLAB.items() if version not in bounds.get(name, version)}
  assert out == TOO_OLD & {*bounds}


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
    assert modes[-1] in main.modes.MODES
    assert all(name in main.flags.FLAGS or name.startswith("config.") for name in options)
  story = {
    "glober": ["train"] * 3 + ["sample", "redraw", "evaluate", "train"],
    "lgcvd": ["train", "predict", "interpolate", "evaluate", "train", "predict"],
  }
  assert modes == ["doctor", *story[page.stem]]


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 13), reason="Colab's Python is 3.13: run it there")
def test_pip_resolves_its_command_beside_what_colab_holds(tmp_path) -> None:
  """Colab's versions really lie there; what would replace them is not downloaded."""
  venv.create(tmp_path / "colab", with_pip=True)
  pip = [str(tmp_path / "colab" / "bin" / "python"), "-m", "pip", "install", "--quiet"]
  # A recent pip reads a wheel's metadata without the wheel, and Colab's is one.
  subprocess.run([*pip, "--upgrade", "pip"], check=True)
  held = [f"{name}=={version}" for name, version in COLAB.items()]
  subprocess.run([*pip, "--no-deps", *held], check=True)

  def resolve(words: list[str]) -> dict[str, str]:
    """Versions that the page's own words would install."""
    report = tmp_path / "report.json"
    options = ["--dry-run", f"--report={report}"]
    subprocess.run([*pip[:3], *words[1:], *options], check=True, cwd=ROOT)
    found: list[Any] = json.loads(report.read_text())["install"]
    return {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in found}

  extras, command = install_of(PAGES[0])  # the other's are the same: tested above
  for backend, names in extras.items():
    new = resolve(shlex.split(command.replace("{EXTRAS}", names)))
    print(backend, json.dumps(new, sort_keys=True))
    replaced = TOO_OLD - (set() if backend == "tpu" else {"libtpu"})
    assert replaced <= {*new}, (backend, new)
    assert new["jax"] == new["jaxlib"]
    if backend == "gpu":
      assert new["jax-cuda12-plugin"].split(".")[:2] == new["jax"].split(".")[:2]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_it_runs_from_its_first_cell_to_its_last(page: pathlib.Path, tmp_path) -> None:
  """With ':smoke', and every command's exit status asked for: a notebook goes on without."""
  nbformat = needs("nbformat")
  nbclient = needs("nbclient")
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
