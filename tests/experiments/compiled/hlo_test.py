"""The text of compiled programs, in pieces recorded from the compilers and shortened."""

import pathlib

import pytest

from experiments.compiled import hlo

# A loop of 64 turns (libtpu 0.0.50): its length stands in the condition alone.
LOOP = (pathlib.Path(__file__).parent / "loop.hlo").read_text()


@pytest.fixture(scope="module")
def loop() -> hlo.Module:
  return hlo.Module(LOOP)


def test_a_loop_s_body_counts_as_often_as_it_turns(loop: hlo.Module) -> None:
  assert loop.cycles == 64 * 34719 + 1000


def test_a_length_that_the_compiler_knows_goes_first() -> None:
  known = LOOP.replace(
    "body=%body.5,", 'body=%body.5, backend_config={"known_trip_count":{"n":"3"}},'
  )
  assert hlo.Module(known).cycles == 3 * 34719 + 1000


def test_operations_have_the_names_of_our_code(loop: hlo.Module) -> None:
  names = [
    ("Attention_*/block_*/qkv/dot_general", 64 * 34719),
    ("backward DiT/blocks_*/qkv/dot_general", 1000),
  ]
  assert loop.dearest() == names
  assert loop.dearest(1) == names[:1]


def test_a_module_s_methods_are_not_named_beside_it() -> None:
  name = (
    "jit(step)/transpose(jvp(DiT))/DiT._blocks/while/body/blocks.<lambda>/blocks/qkv/dot_general"
  )
  assert hlo.readable(name) == "backward DiT/blocks/qkv/dot_general"


def test_a_kernel_without_an_estimate_is_counted(loop: hlo.Module) -> None:
  assert loop.unestimated() == 1


def test_collectives_in_a_loop_and_in_pairs() -> None:
  assert hlo.Module(LOOP).collectives() == [hlo.Collective("all-reduce", 1, 4096)]
  in_loop = LOOP.replace(
    "  ROOT %tuple.1",
    "  %all-gather-start.1 = (bf16[8,128]{1,0}, bf16[32,128]{1,0}) all-gather-start(%slice)\n"
    "  %all-gather-done.1 = bf16[32,128]{1,0} all-gather-done(%all-gather-start.1)\n"
    "  %scattered = f32[2,128]{1,0} reduce-scatter(%fusion.1), to_apply=%add.1\n"
    "  ROOT %tuple.1",
  ).replace(
    "  ROOT %convert.1", "  %fusion.1 = f32[8,128]{1,0} exponential(%param_0.3)\n  ROOT %convert.1"
  )
  found = {each.kind: each for each in hlo.Module(in_loop).collectives()}
  assert found["all-gather"] == hlo.Collective("all-gather", 64, 64 * 32 * 128 * 2)
  assert found["reduce-scatter"].count == 64


def test_of_branches_the_dearest_counts() -> None:
  two = LOOP.replace(
    "ENTRY",
    "%dear (p: f32[8]) -> f32[8] {\n"
    '  ROOT %a = f32[8]{0} negate(%p), backend_config={"estimated_cycles":"500"}\n}\n\n'
    "%cheap (p: f32[8]) -> f32[8] {\n"
    '  ROOT %b = f32[8]{0} negate(%p), backend_config={"estimated_cycles":"400"}\n}\n\n'
    "ENTRY",
  )
  cond = "  %c = f32[8]{0} conditional(%flag, %p, %p), "
  for branches in (
    "branch_computations={%cheap, %dear}",
    "true_computation=%dear, false_computation=%cheap",
  ):
    module = hlo.Module(two.replace("  ROOT %kernel", f"{cond}{branches}\n  ROOT %kernel"))
    assert module.cycles == 64 * 34719 + 1000 + 500
    assert all(instruction.name != "b" for instruction, _ in module.executions)


@pytest.mark.parametrize(
  ("shape", "size"),
  [
    ("f32[]{:T(128)}", 4),
    ("bf16[64,1024,8,40]{1,3,2,0:T(8,128)(2,1)}", 64 * 1024 * 8 * 40 * 2),
    ("(s32[]{:T(128)}, pred[3]{0}, /*index=5*/u8[2,2]{1,0})", 4 + 3 + 4),
    ("f8e4m3fn[10]", 10),
    ("token[]", 0),
  ],
)
def test_sizes_of_shapes(shape: str, size: int) -> None:
  assert hlo.size_of(shape) == size


def test_another_text_is_refused() -> None:
  with pytest.raises(ValueError, match="no entry computation"):
    hlo.Module("module @jit_f {}")
