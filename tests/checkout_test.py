"""The console command `videodiff`."""

import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT, setup_arguments
from videodiff_jax import checkout

COMMAND = "from videodiff_jax.checkout import main; main()"


def test_setup_names_it() -> None:
  (script,) = setup_arguments()["entry_points"]["console_scripts"]
  assert script == f"videodiff = {checkout.__name__}:{checkout.main.__name__}"


def test_it_is_the_one_command_from_any_folder(tmp_path) -> None:
  ended = subprocess.run(
    [sys.executable, "-c", COMMAND, "--mode=sample"],
    cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
  )  # fmt: skip
  assert ended.returncode == 1 and "--mode=sample needs --workdir" in ended.stderr


def test_without_a_checkout_it_says_what_to_do(tmp_path, monkeypatch, capsys) -> None:
  monkeypatch.setattr(checkout, "ROOT", tmp_path)
  with pytest.raises(SystemExit) as ended:
    checkout.main()
  assert ended.value.code == 1
  assert "clone the repository and run pip install -e . there" in capsys.readouterr().err
