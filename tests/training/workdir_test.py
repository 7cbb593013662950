"""What a workdir's folders promise."""

from videodiff_jax.training.workdir import unused


def test_an_unused_name(tmp_path) -> None:
  file = tmp_path / "quick.json"
  for name in ("quick.json", "quick-2.json", "quick-3.json"):
    assert unused(file) == tmp_path / name
    (tmp_path / name).touch()
  folder = tmp_path / "prediction"
  folder.mkdir()
  assert unused(folder) == tmp_path / "prediction-2"
