"""Noise schedules: the betas of the forward process (GLOBER Eq. 3) and what follows."""

import dataclasses
import functools

import numpy as np

KINDS = ("scaled_linear", "linear", "cosine")


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
  """The constants of q(x_t | x_0) for integer timesteps 0..T-1, in float64 until they are used.

  Attributes:
    betas: (T,) variance added at each step, in (0, 1).
  """

  betas: np.ndarray

  @property
  def num_timesteps(self) -> int:
    return len(self.betas)

  @functools.cached_property
  def alphas_cumprod(self) -> np.ndarray:
    """(T,) share of signal variance left at t: the abar_t of Eq. 4."""
    return np.cumprod(1.0 - self.betas)

  @functools.cached_property
  def log_snr(self) -> np.ndarray:
    """(T,) lambda_t = log(sqrt(abar_t) / sqrt(1 - abar_t)), decreasing in t.

    Half the logarithm of the ratio of variances, as DPM-Solver counts it.
    """
    return 0.5 * (np.log(self.alphas_cumprod) - np.log1p(-self.alphas_cumprod))

  @functools.cached_property
  def posterior_variance(self) -> np.ndarray:
    """(T,) beta-tilde_t of Eq. 6; zero at t = 0."""
    previous = np.append(1.0, self.alphas_cumprod[:-1])
    return self.betas * (1.0 - previous) / (1.0 - self.alphas_cumprod)

  @functools.cached_property
  def posterior_mean_coefficients(self) -> tuple[np.ndarray, np.ndarray]:
    """(T,) and (T,): weights of x_0 and of x_t in the mean mu-tilde_t of Eq. 6."""
    previous = np.append(1.0, self.alphas_cumprod[:-1])
    left = 1.0 - self.alphas_cumprod
    of_x0 = self.betas * np.sqrt(previous) / left
    of_xt = (1.0 - previous) * np.sqrt(1.0 - self.betas) / left
    return of_x0, of_xt


def make_schedule(
  kind: str = "scaled_linear",
  num_timesteps: int = 1000,
  beta_start: float = 8.5e-4,
  beta_end: float = 1.2e-2,
) -> Schedule:
  """Builds a schedule by name.

  Args:
    kind: 'scaled_linear' (square root of beta linear in t: GLOBER's release, Stable Diffusion),
      'linear' (beta linear in t: DDPM) or 'cosine' (abar a squared cosine: Nichol & Dhariwal
      Eq. 17, betas clipped at 0.999; LGC-VD; the two betas are not used).
    num_timesteps: T.
    beta_start: first beta.
    beta_end: last beta.

  Raises:
    ValueError: an unknown kind.
  """
  if kind == "scaled_linear":
    betas = np.linspace(beta_start**0.5, beta_end**0.5, num_timesteps) ** 2
  elif kind == "linear":
    betas = np.linspace(beta_start, beta_end, num_timesteps)
  elif kind == "cosine":
    s = 0.008
    time = np.linspace(0.0, 1.0, num_timesteps + 1)
    signal = np.cos((time + s) / (1 + s) * np.pi / 2) ** 2
    betas = np.clip(1.0 - signal[1:] / signal[:-1], 0.0, 0.999)
  else:
    raise ValueError(f"Unknown noise schedule {kind!r}. Choose one of: {', '.join(KINDS)}.")
  return Schedule(betas)
