import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import needs
from tests.metrics import torch_trunk
from tests.weights import require
from videodiff_jax.metrics import lpips
from videodiff_jax.pretrained import lpips as pretrained


def load(net: str) -> dict:
  require(pretrained.WEIGHTS[net])
  return lpips.load_params(net)


def pictures(seed: int, size: int = 40) -> np.ndarray:
  return np.random.default_rng(seed).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)


@pytest.mark.parametrize(("net", "expected"), [("alex", 0.8139547), ("vgg", 0.4538)])
def test_black_against_white(net: str, expected: float):
  white = jnp.ones((1, 64, 64, 3))
  distance = lpips.lpips(-white, white, net, load(net))
  assert distance.shape == (1,)
  np.testing.assert_allclose(distance, expected, rtol=2e-6 if net == "alex" else 1e-4)


def test_equal_pictures_have_no_distance_and_order_does_not_matter():
  params, a, b = load("alex"), pictures(0), pictures(1)
  np.testing.assert_allclose(lpips.lpips(a, a, "alex", params), 0.0, atol=1e-12)
  ab, ba = (lpips.lpips(*pair, "alex", params) for pair in ((a, b), (b, a)))
  assert (ab > 0.05).all()
  np.testing.assert_allclose(ab, ba, rtol=1e-6)


def test_gradient_is_finite_and_leads_to_the_target():
  params, target = load("alex"), pictures(0)
  loss = jax.jit(jax.value_and_grad(lambda x: lpips.lpips(x, target, "alex", params).sum()))
  x = pictures(1)
  before, gradient = loss(x)
  after, _ = loss(x - 1e-2 * gradient / jnp.abs(gradient).max())
  assert after < before
  for flat in (-1.0, 0.0, 1.0):
    assert jnp.isfinite(loss(jnp.full_like(x, flat))[1]).all()


def test_gradient_of_dead_features_is_finite():
  gradient = jax.grad(lambda x: lpips._normalise(x).sum())(jnp.zeros((2, 3)))
  assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_heads_are_the_authors(net: str):
  torch = needs("torch")
  try:
    package = importlib.metadata.distribution("lpips")
  except importlib.metadata.PackageNotFoundError:
    # In no extra: it brings torchvision, and one that is of another torch breaks diffusers.
    pytest.skip("the authors' package is missing (pip install --no-deps lpips==0.1.4)")
  path = package.locate_file(f"lpips/weights/v0.1/{net}.pth")
  heads = torch.load(path, "cpu", weights_only=True)
  params = load(net)
  for i in range(5):
    theirs = heads[f"lin{i}.model.1.weight"].numpy()
    np.testing.assert_array_equal(params[f"head_{i}"]["kernel"][:, 0], theirs[0, :, 0, 0])


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_equal_to_torch(net: str):
  """Trunk, normalisation and heads in torch with the same weights."""
  torch = needs("torch")
  params = load(net)
  a, b = pictures(2), pictures(3)
  activations = torch_trunk.build(net, params)
  expected = 0.0
  with torch.no_grad():
    levels = [activations(torch.tensor(z.transpose(0, 3, 1, 2))) for z in (a, b)]
    for i, (x, y) in enumerate(zip(*levels, strict=True)):
      difference = torch.nn.functional.normalize(x) - torch.nn.functional.normalize(y)
      head = torch.tensor(params[f"head_{i}"]["kernel"].T[..., None, None].copy())
      expected += torch.nn.functional.conv2d(difference**2, head).mean(dim=(1, 2, 3)).numpy()
  np.testing.assert_allclose(lpips.lpips(a, b, net, params), expected, rtol=1e-5)


def test_wrong_input_is_an_error():
  a = np.zeros((1, 32, 32, 3), np.float32)
  with pytest.raises(ValueError, match="alex, vgg"):
    lpips.lpips(a, a, "squeeze", {})
  with pytest.raises(ValueError, match=r"two \(n, h, w, 3\)"):
    lpips.lpips(a[..., :1], a[..., :1], "alex", {})
  with pytest.raises(ValueError, match="uint8"):
    lpips.lpips(a.astype(np.uint8), a, "alex", {})
  with pytest.raises(ValueError, match="31 pixels"):
    lpips.lpips(a[:, :30], a[:, :30], "alex", {})
