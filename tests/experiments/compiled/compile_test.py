"""A whole program compiled for a TPU without one; skipped where its compiler is not installed."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import pytest

from configs import lgcvd_digits
from experiments.benchmarks import compiled
from experiments.compiled import figures, programs, show, targets
from experiments.compiled.targets import Target
from experiments.setup import systems
from experiments.setup.errors import UserError
from tests.experiments.toy.config import get_config
from videodiff_jax.models import attention, layers
from videodiff_jax.training import flops, partitioning

# A compiler alone cannot read the cache's programs, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache")
WITH_TPU = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="libtpu, the compiler for TPUs, is missing"
)


@pytest.fixture(scope="module")
def slice_of_four() -> Target:
  return targets.find("v5e:2x2")


@pytest.fixture(autouse=True)
def toy(monkeypatch) -> None:
  monkeypatch.setitem(systems._BUILT_IN, "toy", "tests.experiments.toy.system:SYSTEM")


def here(count: int) -> Target:
  """A target of the CPU's own devices, whose compiler is always there."""
  return Target("here", tuple(jax.devices()[:count]), 100e9, None, "XLA")


@WITH_TPU
def test_a_step_takes_the_forms_of_the_device_that_it_is_compiled_for(slice_of_four) -> None:
  """On CPU a small convolution is a matrix product of shifted copies."""

  def step(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.grad(lambda k: jnp.square(layers.conv3x3(x, k)).mean())(kernel)

  mesh = partitioning.make_mesh(devices=list(slice_of_four.devices))
  x, kernel = jax.ShapeDtypeStruct((4, 4, 4, 8), "float32"), jnp.zeros((3, 3, 8, 8))
  given = programs.split(x, mesh), partitioning.with_shardings(jax.eval_shape(lambda: kernel), mesh)

  def trace() -> jax.stages.Traced:
    with jax.set_mesh(mesh):
      return jax.jit(step).trace(*given)

  program = programs.Program("step", 4, mesh, trace, lambda traced: 1000)
  assert "conv_general_dilated" in str(trace().jaxpr)
  found = figures.of(program, slice_of_four)
  assert found.verdict == "fits" and 0 < found.total < found.capacity
  assert found.cycles and found.dearest and found.share
  assert [kind for kind, _, _ in found.collectives] == ["all-reduce"]


@WITH_TPU
def test_a_tpu_keeps_the_logits_of_attention_in_its_vector_memory(slice_of_four) -> None:
  """The UNet's 32 x 32 map: 1024 tokens, 8 heads of 40, whose logits are .5 GB a device."""
  mesh = partitioning.make_mesh(devices=list(slice_of_four.devices))
  q = programs.split(jax.ShapeDtypeStruct((64, 1024, 8, 40), "bfloat16"), mesh)

  def trace() -> jax.stages.Traced:
    with jax.set_mesh(mesh):
      return jax.jit(attention.attend).trace(q, q, q)

  program = programs.Program("attend", 64, mesh, trace, lambda traced: flops.count(traced.jaxpr))
  found = figures.of(program, slice_of_four)
  assert found.memory.temporary < 10e6 and not found.collectives
  assert found.share > 0.15  # with logits in main memory .055


@WITH_TPU
def test_what_does_not_fit_is_a_verdict(slice_of_four) -> None:
  mesh = partitioning.make_mesh(devices=list(slice_of_four.devices))
  x = programs.split(jax.ShapeDtypeStruct((4, 2**30, 5), "float32"), mesh)  # 21 GB a device

  def trace() -> jax.stages.Traced:
    with jax.set_mesh(mesh):
      return jax.jit(jnp.sin).trace(x)

  config = get_config()
  found = figures.of(programs.Program("mean", 4, mesh, trace, lambda traced: 0), slice_of_four)
  assert found.verdict == "does not fit" and found.memory is None
  assert found.total > found.capacity
  tried = "--config.train.mean.accumulate=2 or --config.mesh.fsdp=4"
  assert f"To try: {tried}" in show.one(found, config)


def test_the_programs_of_another_package_s_system(capsys) -> None:
  """Its step is found by the same interface; it has no sampler to show."""
  config, target = get_config(), here(4)
  assert programs.names(config) == ["mean"]
  (program,) = programs.make(config, target)
  found = figures.of(program, target)
  assert (found.rows, found.mesh, found.devices) == (8, (4, 1), 4)
  assert found.memory.argument > 3 * 4 * 4 * 16 * 16  # the clip and its optimiser's state
  assert found.cycles is None and "all-reduce" in [kind for kind, _, _ in found.collectives]
  text = show.one(found, config)
  assert "mean, 8 rows on a mesh of 4 x 1: fits" in text and "all-reduce" in text


def test_a_batch_that_does_not_divide_is_told_before_anything_is_compiled() -> None:
  config = get_config()
  config.train.mean.batch_size = 6
  with pytest.raises(UserError, match=r"batch_size \(6\) must be a multiple of the 4 device"):
    programs.make(config, here(4))
  config.mesh.fsdp = 3
  with pytest.raises(UserError, match="does not fit 4 device"):
    programs.make(config, here(4))


def test_an_unknown_program_is_told() -> None:
  with pytest.raises(UserError, match=r"Unknown --programs 'men'.*'mean'"):
    programs.make(get_config(), here(4), ["men"])


def test_the_table_goes_on_where_it_was_stopped(monkeypatch, tmp_path) -> None:
  row = compiled.Row("toy:small", "", "v5e:2x2", "mean")
  monkeypatch.setattr(compiled, "FOLDER", tmp_path / "programs")
  monkeypatch.setattr(compiled, "ROWS", (row,))
  monkeypatch.setattr(compiled.Row, "load", lambda row: get_config())
  monkeypatch.setattr(targets, "find", lambda name: here(4))
  made = []
  of = figures.of
  monkeypatch.setattr(figures, "of", lambda *given: made.append(given) or of(*given))
  compiled.fill(row)
  compiled.fill(row)
  assert len(made) == 1
  assert row.file.name == "toy_small.v5e_2x2.mean.json"
  cells = compiled.table().splitlines()[-1].strip("| ").split(" | ")
  assert cells[:7] == ["toy:small", "mean", "here", "8", "1", "4 x 1", "fits"]
  monkeypatch.setattr(targets, "find", lambda name: dataclasses.replace(here(4), compiler="newer"))
  compiled.fill(row)
  assert len(made) == 2


def test_every_row_is_a_program_of_its_configuration() -> None:
  for row in compiled.ROWS:
    config = row.load()
    assert row.program in programs.names(config) and row.target in targets.names(), row


def test_a_fragment_of_lgcvd_is_a_program() -> None:
  (program,) = programs.make(lgcvd_digits.get_config("smoke"), here(2), ["sample_fragment"])
  assert program.flops(program.trace()) > 1e6
