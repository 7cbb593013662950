import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import fill, traced_for
from videodiff_jax.models import attention, target
from videodiff_jax.training import flops, partitioning


def normal(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_attend_equals_the_library_function():
  q, k, v = normal(2, 5, 3, 8), normal(2, 7, 3, 8, seed=1), normal(2, 7, 3, 8, seed=2)
  expected = jax.nn.dot_product_attention(q, k, v)
  np.testing.assert_allclose(attention.attend(q, k, v), expected, atol=1e-5)


def test_attend_survives_large_logits():
  q, k, v = 200 * normal(1, 4, 1, 8), 200 * normal(1, 4, 1, 8, seed=1), normal(1, 4, 1, 8)
  expected = jax.nn.dot_product_attention(q, k, v)
  actual = attention.attend(q, k, v)
  assert np.isfinite(actual).all()
  np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize("queries", [12, 13])
def test_many_logits_come_in_chunks_with_the_same_result_and_gradients(monkeypatch, queries):
  q, k, v = normal(2, queries, 3, 8), normal(2, 7, 3, 8, seed=1), normal(2, 7, 3, 8, seed=2)

  def loss(q, k, v):
    y = attention.attend(q, k, v)
    return (y * np.arange(queries)[None, :, None, None]).sum(), y

  def run():
    return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(q, k, v)

  whole = run()
  monkeypatch.setattr(attention, "_MOST_LOGITS", 20)
  assert " scan" in str(jax.make_jaxpr(attention.attend)(q, k, v))
  chex.assert_trees_all_close(run(), whole, rtol=1e-7, atol=1e-4)


@pytest.mark.parametrize("queries", [4096, 4095])
def test_all_logits_of_a_large_map_are_never_whole(queries):
  """Cityscapes' 64x64 map: neither forward nor backward holds 4096 x 4096 numbers."""
  q = jax.ShapeDtypeStruct((1, queries, 1, 16), np.float32)
  program = jax.jit(jax.grad(lambda q, k, v: attention.attend(q, k, v).sum(), argnums=(0, 1, 2)))
  memory = program.lower(q, q, q).compile().memory_analysis()
  assert memory.temp_size_in_bytes < queries * queries * 4


@pytest.mark.parametrize(
  ("kind", "tokens", "width", "dtype", "takes"),
  [
    ("NVIDIA H100 80GB HBM3", 1024, 40, "bfloat16", "cudnn"),  # the UNet at 32x32, exactly 2**20
    ("NVIDIA H100 80GB HBM3", 512, 32, "bfloat16", "cudnn"),  # a pair of 16x16, the discriminator
    ("NVIDIA H100 80GB HBM3", 256, 64, "bfloat16", "whole"),
    ("NVIDIA H100 80GB HBM3", 1024, 40, "float32", "whole"),
    ("NVIDIA H100 80GB HBM3", 1024, 512, "bfloat16", "whole"),  # the KL-VAE's one head
    ("NVIDIA H100 80GB HBM3", 4096, 512, "bfloat16", "chunks"),
    ("Tesla T4", 4096, 40, "bfloat16", "chunks"),
    ("AMD Instinct MI300X", 4096, 40, "bfloat16", "chunks"),
    ("TPU v5e", 1024, 40, "bfloat16", "whole"),
    ("TPU v5e", 4096, 40, "bfloat16", "chunks"),
  ],
)
def test_many_logits_take_flash_attention_where_it_runs(
  monkeypatch, kind, tokens, width, dtype, takes
):
  """By the device that is traced for: there is none but the CPU here."""
  asked = []
  monkeypatch.setattr(
    jax.nn, "dot_product_attention", lambda q, k, v, **how: asked.append(how) or q
  )
  q = jax.ShapeDtypeStruct((2, tokens, 1, width), dtype)
  with traced_for(kind):
    jaxpr = str(jax.make_jaxpr(attention.attend)(q, q, q))
  assert asked == [{"implementation": "cudnn"} if takes == "cudnn" else {}]
  assert (" scan" in jaxpr) == (takes == "chunks")
  asked.clear()
  jaxpr = str(jax.make_jaxpr(attention.attend)(q, q, q))
  assert not asked  # the CPU's own form
  assert (" scan" in jaxpr) == (tokens == 4096)


def test_a_tpu_takes_heads_in_groups_with_the_same_result_and_gradients(monkeypatch):
  """With and without a mesh, over which every device's rows are a loop of their own."""
  monkeypatch.setattr(target, "device_kind", lambda: "TPU v5 lite")
  given = normal(8, 6, 3, 8), normal(8, 7, 3, 8, seed=1), normal(8, 7, 3, 8, seed=2)

  def traced(*given):
    def loss(q, k, v):
      y = attention.attend(q, k, v)
      return (y * np.arange(6.0)[None, :, None, None]).sum(), y

    # A new function each time, as JAX would not trace one again.
    return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True)).trace(*given)

  def loops(traced) -> bool:
    return " scan" in str(traced.jaxpr)

  whole = traced(*given)
  assert not loops(whole)
  monkeypatch.setattr(attention, "_TPU_LOGITS", 2 * 6 * 7)  # two heads of a row
  assert not loops(traced(*given))  # too few for a head to gain
  monkeypatch.setattr(attention, "_TPU_FEWEST", {"TPU v5 lite": 6 * 7})
  grouped = traced(*given)
  assert loops(grouped)
  expected = whole.lower().compile()(*given)
  chex.assert_trees_all_close(grouped.lower().compile()(*given), expected, atol=1e-4)
  mesh = partitioning.make_mesh(2, 2, jax.devices()[:4])
  placed = jax.device_put(given, jax.sharding.NamedSharding(mesh, partitioning.BATCH))
  with jax.set_mesh(mesh):
    split = traced(*placed)
    program = split.lower().compile()
    assert loops(split) and "all-gather" not in program.as_text()
    chex.assert_trees_all_close(program(*placed), expected, atol=1e-4)
    assert flops.count(split.jaxpr) == flops.count(grouped.jaxpr)
    # Rows that do not divide over the devices are left to the compiler.
    assert not loops(traced(*(x[:6] for x in given)))


@pytest.mark.gpu
@pytest.mark.parametrize(("tokens", "width"), [(512, 32), (1024, 40), (640, 128)])
def test_flash_attention_gives_what_all_logits_give(tokens, width):
  """cuDNN's numbers and gradients in bfloat16 against XLA's of the same inputs in float32."""
  if jax.default_backend() != "gpu":
    pytest.skip("no GPU: JAX_PLATFORMS=cuda python -m pytest -n 0 -m gpu runs this where one is")
  inputs = [jnp.bfloat16(normal(2, tokens, 3, width, seed=seed)) for seed in range(4)]

  @jax.jit
  def flash(q, k, v, weight):
    y, back = jax.vjp(attention.attend, q, k, v)
    return y, *back(weight)

  @jax.jit
  def whole(q, k, v, weight):
    y, back = jax.vjp(lambda *a: jax.nn.dot_product_attention(*a, implementation="xla"), q, k, v)
    return y, *back(weight)

  assert "__cudnn$fmha" in flash.lower(*inputs).compile().as_text()
  with jax.default_matmul_precision("highest"):
    expected = whole(*(x.astype(jnp.float32) for x in inputs))
  for ours, truth in zip(flash(*inputs), expected):
    error = np.abs(np.asarray(ours, np.float32) - truth)
    assert error.max() < 2e-2 * np.abs(truth).max() and error.mean() < 1e-2 * np.abs(truth).mean()


@pytest.mark.parametrize("tokens, reach", [("spatial", 16), ("temporal", 3), ("joint", 48)])
def test_attention_block_reaches_its_tokens_and_no_others(tokens, reach):
  x = normal(2, 3, 4, 4, 8)
  block = attention.AttentionBlock(2, tokens)
  variables = fill(jax.eval_shape(block.init, jax.random.key(0), x), scale=0.5)
  apply = jax.jit(block.apply)
  nudged = x.copy()
  nudged[1, 2, 1, 3] += np.arange(8)
  changed = np.abs(apply(variables, nudged) - apply(variables, x)).max(-1) > 1e-7
  assert changed.sum() == reach and not changed[0].any() and changed[1, 2, 1, 3]
  if tokens == "spatial":
    assert changed[1, 2].all()
  if tokens == "temporal":
    assert changed[1, :, 1, 3].all()


@pytest.mark.parametrize("tokens", ["spatial", "temporal", "joint"])
def test_attention_block_starts_as_the_identity(tokens):
  x = normal(1, 2, 2, 2, 4)
  block = attention.AttentionBlock(1, tokens)
  key = jax.random.key(0, impl="unsafe_rbg")  # compiles faster
  np.testing.assert_array_equal(jax.jit(block.init_with_output)(key, x)[0], x)


def test_spatial_transformer_reads_its_context_and_starts_as_the_identity():
  x, context = normal(2, 3, 3, 8), normal(2, 4, 6, seed=1)
  module = attention.SpatialTransformer(num_heads=2, depth=2)
  key = jax.random.key(0, impl="unsafe_rbg")  # compiles faster
  start, variables = jax.jit(module.init_with_output)(key, x, context)
  np.testing.assert_array_equal(start, x)
  variables = fill(variables, scale=0.3)
  apply = jax.jit(module.apply)
  y, moved = apply(variables, x, context), apply(variables, x, context * np.float32(2))
  assert np.abs(y - moved).max() > 1e-3
  # Tokens are a set: their order carries nothing.
  np.testing.assert_allclose(apply(variables, x, context[:, ::-1]), y, atol=1e-5)


def test_heads_come_from_their_width_or_their_number():
  assert attention.count_heads(640, None, 64) == 10
  assert attention.count_heads(640, 8, None) == 8
  assert attention.count_heads(640, 8, 32) == 20


@pytest.mark.parametrize(
  "arguments", [(100, None, 64), (10, 3, None), (64, None, None), (32, None, 64)]
)
def test_heads_that_do_not_divide_are_refused(arguments):
  with pytest.raises(ValueError, match=f"{arguments[0]} channels do not split into heads"):
    attention.count_heads(*arguments)


def test_accelerators_take_the_library_function_and_get_the_same_block(monkeypatch):
  x = normal(2, 3, 4, 4, 8)
  block = attention.AttentionBlock(2, "joint")
  variables = fill(jax.eval_shape(block.init, jax.random.key(0), x), scale=0.5)
  here = block.apply(variables, x)
  called = []
  library = jax.nn.dot_product_attention
  monkeypatch.setattr(target, "device_kind", lambda: "TPU v5e")
  monkeypatch.setattr(
    jax.nn, "dot_product_attention", lambda *args: called.append(1) or library(*args)
  )
  np.testing.assert_allclose(block.apply(variables, x), here, atol=1e-5)
  assert called


def test_joint_text_attention_reads_frame_and_text_tokens_in_one_softmax():
  """Keys and values are [frame tokens; projected text tokens], and there is no cross-attention."""
  x, context = normal(2, 3, 3, 8), normal(2, 4, 6, seed=1)
  module = attention.SpatialTransformer(num_heads=2, text_attention="joint")
  variables = fill(jax.eval_shape(module.init, jax.random.key(0), x, context), scale=0.3)
  params = variables["params"]
  assert set(params["block_0"]) == {
    "norm_self", "self_attention", "norm_feed", "feed_in", "feed_out"
  }  # fmt: skip
  assert params["text_in"]["kernel"].shape == (6, 8)
  apply = jax.jit(module.apply)
  y = apply(variables, x, context)
  # By hand, up to the attention: zero weights after it leave its result to be seen.
  block = params["block_0"]
  silent = {**block, "feed_out": jax.tree.map(np.zeros_like, block["feed_out"])}
  seen = {"params": {**params, "block_0": silent}}
  groups = x.reshape(2, 9, 8)  # of one channel each
  norm = (groups - groups.mean(1, keepdims=True)) / np.sqrt(groups.var(1, keepdims=True) + 1e-6)
  norm = norm * params["norm"]["scale"] + params["norm"]["bias"]
  h = norm @ params["proj_in"]["kernel"] + params["proj_in"]["bias"]
  text = context @ params["text_in"]["kernel"] + params["text_in"]["bias"]
  z = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
  z = z * block["norm_self"]["scale"] + block["norm_self"]["bias"]
  own = block["self_attention"]
  tokens = np.concatenate([z, text], axis=1)
  q, k, v = (
    (t @ own[name]["kernel"]).reshape(2, -1, 2, 4)
    for t, name in ((z, "query"), (tokens, "key"), (tokens, "value"))
  )
  logits = np.einsum("bnhd,bmhd->bhnm", q, k) / 2
  weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  update = np.einsum("bhnm,bmhd->bnhd", weights, v).reshape(2, 9, 8)
  h = h + update @ own["out"]["kernel"] + own["out"]["bias"]
  expected = x + (h @ params["proj_out"]["kernel"] + params["proj_out"]["bias"]).reshape(x.shape)
  np.testing.assert_allclose(apply(seen, x, context), expected, atol=1e-5)
  assert np.abs(y - apply(variables, x, 2 * context)).max() > 1e-3
