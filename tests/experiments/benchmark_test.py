"""--mode=benchmark: that both sides of LGC-VD's do the same work, and what the table says."""

import sys
import types

import ml_collections
import numpy as np
import pytest

from experiments.benchmarks import lgcvd_unet, unets
from experiments.setup.errors import UserError
from tests.helpers import needs
from tests.lgcvd import tiny


def config() -> ml_collections.ConfigDict:
  small = tiny.config()
  small.model.update(channels=8, multipliers=(1, 2), attention_rates=(2,))
  return small


def test_both_networks_draw_the_same() -> None:
  """All steps agree with one noise; the heading counts the parameters of both."""
  needs("torch")
  heading, ours, theirs, remark = lgcvd_unet.functions(config())
  assert len(ours) == len(theirs) == len(lgcvd_unet.ROWS)
  assert "side 8, batch 2" in heading and "differ by" in remark
  theirs[1]()  # ours compiles for long
  drawn = ours[2]()
  np.testing.assert_allclose(drawn, theirs[2](), atol=1e-3)
  assert drawn.shape == (2, 8, 8, 8) and np.std(drawn) > 0.1


def test_networks_that_differ_are_not_timed(monkeypatch) -> None:
  needs("torch")
  monkeypatch.setattr(lgcvd_unet, "_MAX_ABS_DIFF", -1.0)
  with pytest.raises(AssertionError, match="Not the same network"):
    lgcvd_unet.functions(config())


def test_the_table_holds_medians_of_neighbouring_runs(monkeypatch) -> None:
  seconds = iter([1.0, 2.0, 6.0, 4.0, 2.0, 1.0])
  monkeypatch.setattr(unets, "_seconds", lambda _: next(seconds))
  fake = types.SimpleNamespace(
    ROWS=(("forward", 3, 0.85),),
    functions=lambda _: ("UNet", (lambda: None,), (lambda: None,), "The same."),
  )
  monkeypatch.setitem(sys.modules, "experiments.benchmarks.lgcvd_unet", fake)
  table = unets.measure(config())
  assert table.splitlines()[2].split() == ["forward", "2.000", "2.000", "1.50", "<=", "0.85"]
  assert table.endswith("taking turns. The same.")


def test_without_pytorch_it_is_told(monkeypatch) -> None:
  monkeypatch.setitem(sys.modules, "torch", None)
  with pytest.raises(UserError, match=r"PyTorch, which cannot be imported \(Mod.*\[parity\]"):
    unets.show(config())
