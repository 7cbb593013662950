"""The store of JAX's coordinator, for tests in one process."""


class Store:
  """The coordinator's store; `down` when it cannot be reached."""

  def __init__(self) -> None:
    self.values: dict[str, str] = {}
    self.down = False

  def key_value_set(self, key: str, value: str, allow_overwrite: bool) -> None:
    if self.down:
      raise RuntimeError("UNAVAILABLE")
    assert allow_overwrite
    self.values[key] = value

  def key_value_dir_get(self, folder: str) -> list[tuple[str, str]]:
    assert all(key.startswith(f"{folder}/") for key in self.values)
    return list(self.values.items())
