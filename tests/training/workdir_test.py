"""What a workdir's folders promise."""

from videodiff_jax.training.workdir import unused


def test_unused_names_share_the_first_free_number(tmp_path) -> None:
  for numbered in (("quick.json", "sets.png"), ("quick_2.json", "sets_2.png")):
    files = unused(tmp_path, "quick.json", "sets.png")
    assert files == [tmp_path / name for name in numbered]
    files[0].touch()
  (tmp_path / "sets_3.png").touch()  # of an evaluation that was interrupted
  file, _ = unused(tmp_path, "quick.json", "sets.png")
  assert file.name == "quick_4.json"
