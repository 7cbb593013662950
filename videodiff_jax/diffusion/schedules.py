"""Noise schedules: the forward process's betas (GLOBER Eq. 3, LGC-VD Eq. 2) and its constants."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from videodiff_jax.choices import check_choice

KINDS = ("scaled_linear", "linear", "cosine")
PRECISIONS = ("float64", "float32")


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
  """The constants of q(x_t | x_0) for integer timesteps 0..T-1, in float64 until they are used.

  The forward process is a chain of T steps (LGC-VD Eq. 1).

  Attributes:
    betas: (T,) variance added at each step (GLOBER Eq. 3, LGC-VD Eq. 2), in (0, 1). If they are
      float32, 1 - beta and all constants are float32 too.
  """

  betas: np.ndarray

  @property
  def num_timesteps(self) -> int:
    return len(self.betas)

  @functools.cached_property
  def alphas_cumprod(self) -> np.ndarray:
    """(T,) fraction of signal variance left at t: abar_t of GLOBER Eq. 4, LGC-VD Eq. 3."""
    alphas = 1.0 - self.betas
    # PyTorch also multiplies in double precision: float32 rounds only factors and results.
    return np.cumprod(alphas, dtype=np.float64).astype(alphas.dtype)

  @functools.cached_property
  def log_snr(self) -> np.ndarray:
    """(T,) lambda_t = log(sqrt(abar_t) / sqrt(1 - abar_t)), decreasing in t.

    It is half the logarithm of the ratio of variances, as DPM-Solver defines it.
    """
    abar = self.alphas_cumprod.astype(np.float64)
    with np.errstate(divide="ignore"):  # -inf where float32 leaves no signal
      return 0.5 * (np.log(abar) - np.log1p(-abar))

  @functools.cached_property
  def posterior_variance(self) -> np.ndarray:
    """(T,) beta-tilde_t of GLOBER Eq. 6 and LGC-VD Eq. 6; zero at t = 0."""
    return self.betas * (1.0 - self._previous) / (1.0 - self.alphas_cumprod)

  @functools.cached_property
  def posterior_mean_coefficients(self) -> tuple[np.ndarray, np.ndarray]:
    """(T,) and (T,), the weights of x_0 and of x_t in the posterior's mean mu-tilde_t.

    LGC-VD Eq. 6; GLOBER Eq. 6 writes the same in terms of the noise instead of x_0.
    """
    previous = self._previous
    left = 1.0 - self.alphas_cumprod
    of_x0 = self.betas * np.sqrt(previous) / left
    of_xt = (1.0 - previous) * np.sqrt(1.0 - self.betas) / left
    return of_x0, of_xt

  def visiting(self, timesteps: np.ndarray) -> "Schedule":
    """Returns the chain of only these ascending timesteps: beta = 1 - abar_i / abar_{i-1}.

    In float32 a large beta leaves few digits of 1 - beta; LGC-VD's release samples with them.
    """
    abar = self.alphas_cumprod[timesteps]
    return Schedule(1 - abar / np.concatenate([np.ones_like(abar[:1]), abar[:-1]]))

  @property
  def _previous(self) -> np.ndarray:
    """(T,) abar_{t-1}, which is 1 before the first timestep."""
    return np.concatenate([np.ones_like(self.betas[:1]), self.alphas_cumprod[:-1]])


def make_schedule(
  kind: str = "scaled_linear",
  num_timesteps: int = 1000,
  beta_start: float = 8.5e-4,
  beta_end: float = 1.2e-2,
  max_beta: float = 0.999,
  precision: str = "float64",
) -> Schedule:
  """Builds a schedule by name.

  Args:
    kind: 'scaled_linear' (square root of beta linear in t: GLOBER's release, Stable Diffusion),
      'linear' (beta linear in t: DDPM) or 'cosine' (abar a squared cosine: Nichol & Dhariwal
      2021 Eq. 17; LGC-VD; the two betas are not used).
    num_timesteps: T.
    beta_start: first beta.
    beta_end: last beta.
    max_beta: upper limit of the betas of 'cosine'; LGC-VD's release has 0.9999.
    precision: the type of the betas and of the constants computed from them. 'float32' is LGC-VD's
      release: abar at the last timestep has a relative difference of 1.7e-4.

  Raises:
    ValueError: the kind or precision is unknown.
  """
  check_choice("noise schedule", kind, KINDS)
  check_choice("precision", precision, PRECISIONS)
  if kind == "scaled_linear":
    betas = np.linspace(beta_start**0.5, beta_end**0.5, num_timesteps) ** 2
  elif kind == "linear":
    betas = np.linspace(beta_start, beta_end, num_timesteps)
  else:  # cosine
    s = 0.008
    time = np.linspace(0.0, 1.0, num_timesteps + 1)
    signal = np.cos((time + s) / (1 + s) * np.pi / 2) ** 2
    betas = np.clip(1.0 - signal[1:] / signal[:-1], 0.0, max_beta)
  return Schedule(betas.astype(precision))


def spaced_timesteps(num_timesteps: int, counts: Sequence[int]) -> np.ndarray:
  """Returns evenly spaced ascending timesteps, with both ends of every section.

  The chain is cut into equal sections, and section i keeps counts[i] timesteps. Halves round to
  even. With one count this is the grid of LGC-VD's release (0, 10, ..., 50, 61, ... for 100).

  Raises:
    ValueError: a section is shorter than its count.
  """
  size, extra = divmod(num_timesteps, len(counts))
  start, taken = 0, []
  for i, count in enumerate(counts):
    section = size + (i < extra)
    if count > section:
      raise ValueError(f"A section of {section} timesteps cannot keep {count}: use fewer steps.")
    stride = (section - 1) / max(count - 1, 1)
    # A cumulative sum, as released: a product would round some halves the other way.
    taken += [start + round(at) for at in np.cumsum([0.0] + [stride] * (count - 1)).tolist()]
    start += section
  return np.array(taken)
