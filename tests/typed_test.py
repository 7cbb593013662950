"""Paths and numbers as people type them."""

import pathlib

import pytest

from videodiff_jax import typed


def test_home_is_expanded(monkeypatch) -> None:
  monkeypatch.setenv("HOME", "/home/somebody")
  assert typed.path("~/runs/a b") == pathlib.Path("/home/somebody/runs/a b")
  assert typed.path("~") == pathlib.Path("/home/somebody")
  for same in ("a~/b", "runs/~", "/a:b", "gs:/b", pathlib.Path("x")):
    assert typed.path(same) == pathlib.Path(same)


@pytest.mark.parametrize("given", ["gs://b/x", "s3://b", "file:///x", "https://host/x.mp4"])
def test_addresses_are_refused_where_only_a_disk_will_do(given) -> None:
  with pytest.raises(ValueError, match=f"--out: '{given}' is an address; only files of this"):
    typed.path(given, "--out", on_disk=True)


def test_nothing_is_no_path() -> None:
  with pytest.raises(ValueError, match="--out: the path is empty"):
    typed.path("", "--out")
  with pytest.raises(ValueError, match="no home folder is known"):
    typed.path("~nobody_at_all/x")
