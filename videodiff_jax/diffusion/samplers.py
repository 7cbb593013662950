"""Samplers: from noise to x_0 in n evaluations of a denoiser, in one `lax.scan`.

Each sampler is linear in x, in the network's prediction of x_0 and in its earlier predictions. So
everything that depends on the schedule is tabulated (float64 NumPy) when the sampler is made.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from videodiff_jax.choices import check_choice
from videodiff_jax.diffusion.process import Process
from videodiff_jax.diffusion.schedules import spaced_timesteps

KINDS = ("ddim", "ddpm", "dpmpp_2m", "unipc")
GRIDS = ("uniform", "log_snr", "leading", "spaced")
FINALS = ("x0", "abar0")

# With sqrt(abar) below e^-5 the signal is less than one of 255 levels: x_t is only noise.
_NOISE_ALONE = -5.0

Denoiser = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]]


class SamplerState(NamedTuple):
  """The state passed from one step to the next.

  Attributes:
    x: (b, ...) the sample so far.
    history: earlier arrays that multistep samplers need, each shaped as x: () for DDIM and
      DDPM, (x0,) for DPM-Solver++, (x, x0, x0 of the step before) for UniPC.
  """

  x: jax.Array
  history: tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
  """A sampler for one process: its timesteps and coefficient tables, one row per step.

  Attributes:
    kind: one of KINDS.
    timesteps: (n,) float32, descending; the denoiser is called with them.
    tables: name -> (n,) float32 coefficients, read by `step`.
    clip: whether every intermediate x_0 is clipped to [-1, 1].
  """

  kind: str
  timesteps: np.ndarray
  tables: dict[str, np.ndarray]
  clip: bool = False

  @property
  def num_steps(self) -> int:
    return len(self.timesteps)

  @property
  def stochastic(self) -> bool:
    return self.kind in ("ddim", "ddpm") and bool(self.tables["noise"].any())

  def start(self, x_T: jax.Array) -> SamplerState:
    """Returns the state before the first step, from x_T (b, ...)."""
    depth = {"ddim": 0, "ddpm": 0, "dpmpp_2m": 1, "unipc": 3}[self.kind]
    return SamplerState(x_T, (jnp.zeros_like(x_T),) * depth)

  def step(
    self,
    process: Process,
    i: jax.Array | int,
    state: SamplerState,
    prediction: jax.Array,
    noise: jax.Array | None = None,
  ) -> SamplerState:
    """Makes one step from timesteps[i] to the next; pure. For 'ddpm' it samples LGC-VD Eq. 5.

    Args:
      process: the process, which defines the meaning of the prediction.
      i: index into `timesteps`; may be traced.
      state: from `start` or the step before.
      prediction: the network's output at (state.x, timesteps[i]).
      noise: standard normal, shaped as x; used where `stochastic`.
    """
    chex.assert_equal_shape([state.x, prediction, *(() if noise is None else (noise,))])
    row = {name: jnp.asarray(table)[i] for name, table in self.tables.items()}
    level = row["alpha"], row["sigma"]
    x0 = process.x0_at(*level, state.x, prediction)
    if self.clip:
      x0 = jnp.clip(x0, -1.0, 1.0)
    if self.kind in ("ddim", "ddpm"):
      if self.clip:  # the noise is then the rest of x beside the clipped x_0, not the network's
        x = row["clipped_x"] * state.x + row["clipped_x0"] * x0
      else:
        x = row["x0"] * x0 + row["epsilon"] * process.epsilon_at(*level, state.x, prediction)
      if not self.stochastic:
        return SamplerState(x, ())
      if noise is None:
        raise ValueError("This sampler adds noise: give each step its `noise`.")
      return SamplerState(x + row["noise"] * noise, ())
    if self.kind == "dpmpp_2m":
      (x0_1,) = state.history
      return SamplerState(_second_order(row, state.x, x0, x0_1), (x0,))
    last_x, x0_1, x0_2 = state.history
    corrected = (
      row["c_x"] * state.x
      + row["c_last_x"] * last_x
      + row["c_x0"] * x0
      + row["c_x0_1"] * x0_1
      + row["c_x0_2"] * x0_2
    )
    return SamplerState(_second_order(row, corrected, x0, x0_1), (corrected, x0, x0_1))


def _second_order(
  row: dict[str, jax.Array], x: jax.Array, x0: jax.Array, x0_1: jax.Array
) -> jax.Array:
  """Makes a step of DPM-Solver++(2M), Lu et al. 2022 Algorithm 2; UniPC's predictor is the same."""
  return row["x"] * x + row["x0"] * (x0 + row["slope"] * (x0 - x0_1))


def make_sampler(
  process: Process,
  kind: str = "ddim",
  num_steps: int | Sequence[int] = 50,
  *,
  grid: str = "uniform",
  final: str = "x0",
  eta: float = 0.0,
  clip: bool = False,
) -> Sampler:
  """Lays out the timesteps and computes the tables.

  Args:
    process: schedule and prediction type.
    kind: 'ddim' (Song et al. 2021 Eq. 12), 'ddpm' (GLOBER Eq. 6, LGC-VD Eq. 6: DDIM with eta = 1,
      on any grid), 'dpmpp_2m' (DPM-Solver++ 2M) or 'unipc' (UniPC-2, B(h) = exp(h) - 1).
    num_steps: evaluations of the denoiser, 1 to T. The grid 'spaced' also takes several numbers,
      the steps of as many equal sections of the chain, the least noisy first.
    grid: 'uniform' in t, 'log_snr' (uniform in log-SNR; fractional t; at most 3 steps with a
      cosine schedule, whose log-SNR begins at -11), 'leading' (GLOBER's release: every (T // n)-th
      timestep plus one, which may give more than n steps) or 'spaced' (LGC-VD's: evenly from T - 1
      down to 0, see `schedules.spaced_timesteps`).
    final: where the last step ends: 'x0', or 'abar0' (the noise level of t = 0, as released).
    eta: DDIM's noise: 0 is deterministic, 1 is DDPM.
    clip: clips every intermediate x_0 to [-1, 1]; for pixels, whose range is known.

  Raises:
    ValueError: a name is unknown, the steps lie outside 1 to T, eta is given for another sampler
      than DDIM, a 'leading' grid runs past T - 1 (where the release crashes), a 'spaced' grid has a
      single step, or a 'log_snr' grid has more than its first step where x_t is only noise.
  """
  check_choice("sampler", kind, KINDS)
  check_choice("grid", grid, GRIDS)
  check_choice("end of sampling", final, FINALS)
  if eta and kind != "ddim":
    raise ValueError(f"eta is DDIM's own setting; {kind!r} has none. Leave eta at 0.")
  timesteps = _timesteps(process, num_steps, grid)
  if grid == "spaced":
    chain = process.schedule.visiting(timesteps[::-1].astype(int))
    at = chain.log_snr[::-1]
  else:
    at = np.interp(timesteps, np.arange(process.num_timesteps), process.schedule.log_snr)
  end = [process.schedule.log_snr[0] if final == "abar0" else np.inf]
  to = np.append(at[1:], end)
  if kind in ("ddim", "ddpm"):
    tables = _ddim_tables(at, to, 1.0 if kind == "ddpm" else eta)
    if kind == "ddpm" and grid == "spaced" and final == "x0":
      # The same coefficients by Eq. 6. In float32, betas and abar of a chain are rounded apart.
      of_x0, of_x = chain.posterior_mean_coefficients
      tables |= {"clipped_x0": of_x0[::-1], "clipped_x": of_x[::-1]}
  else:
    tables = _multistep_tables(at, to)
    if kind == "unipc":
      tables |= _corrector_tables(at)
  tables["alpha"], tables["sigma"] = _signal_noise(at)
  as_float32 = {name: table.astype(np.float32) for name, table in tables.items()}
  return Sampler(kind, timesteps.astype(np.float32), as_float32, clip)


def _timesteps(process: Process, num_steps: int | Sequence[int], grid: str) -> np.ndarray:
  total = process.num_timesteps
  if grid == "spaced":
    counts = [num_steps] if isinstance(num_steps, int) else list(num_steps)
    if sum(counts) < 2:
      raise ValueError("grid='spaced' needs 2 steps or more: one would be timestep 0, not T - 1.")
    return spaced_timesteps(total, counts)[::-1].astype(float)
  if not isinstance(num_steps, int):
    raise ValueError(f"grid={grid!r} takes one number of steps, not {num_steps}.")
  if not 1 <= num_steps <= total:
    raise ValueError(f"Sampling steps must be between 1 and {total}, not {num_steps}.")
  if grid == "uniform":
    return np.round(total - np.arange(num_steps) * total / num_steps) - 1.0
  if grid == "log_snr":
    log_snr = process.schedule.log_snr
    wanted = np.linspace(log_snr[-1], log_snr[0], num_steps)
    if (blind := np.count_nonzero(wanted < _NOISE_ALONE)) > 1:
      begins = np.interp(_NOISE_ALONE, log_snr[::-1], np.arange(total)[::-1])
      raise ValueError(
        f"grid='log_snr' would put {blind} of {num_steps} steps past t = {begins:.0f}, where this "
        "schedule leaves only noise. Use grid='uniform' or 'spaced'."
      )
    return np.interp(wanted, log_snr[::-1], np.arange(total)[::-1].astype(float))
  timesteps = np.arange(0, total, total // num_steps) + 1
  if timesteps[-1] >= total:
    raise ValueError(
      f"grid='leading' with {num_steps} steps asks for timestep {timesteps[-1]}, past the last "
      f"timestep {total - 1}. Use another number of steps or grid='uniform'."
    )
  return timesteps[::-1].astype(float)


def _signal_noise(log_snr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns sqrt(abar) and sqrt(1 - abar) for lambda, exact even where it is infinite."""
  return (1.0 + np.exp(-2.0 * log_snr)) ** -0.5, (1.0 + np.exp(2.0 * log_snr)) ** -0.5


def _ddim_tables(at: np.ndarray, to: np.ndarray, eta: float) -> dict[str, np.ndarray]:
  (alpha, sigma), (alpha_to, sigma_to) = _signal_noise(at), _signal_noise(to)
  ratio = np.clip(1.0 - (alpha / alpha_to) ** 2, 0.0, None)
  noise = eta * sigma_to / sigma * np.sqrt(ratio)
  epsilon = np.sqrt(np.clip(sigma_to**2 - noise**2, 0.0, None))
  return {
    "x0": alpha_to,
    "epsilon": epsilon,
    "noise": noise,
    "clipped_x": epsilon / sigma,
    "clipped_x0": alpha_to - epsilon * alpha / sigma,
  }


def _multistep_tables(at: np.ndarray, to: np.ndarray) -> dict[str, np.ndarray]:
  """Tabulates DPM-Solver++(2M).

  Both ends are first order: the first step has no earlier x_0, and h is infinite at the last.
  """
  (_, sigma), (alpha_to, sigma_to) = _signal_noise(at), _signal_noise(to)
  h = to - at
  slope = np.zeros_like(h)
  slope[1:] = 0.5 * h[1:] / h[:-1]
  slope[-1] = 0.0
  return {"x": sigma_to / sigma, "x0": -alpha_to * np.expm1(-h), "slope": slope}


def _corrector_tables(at: np.ndarray) -> dict[str, np.ndarray]:
  """Tabulates UniPC's corrector (Zhao et al. 2023, UniC-2): it refines x_i with x0 at t_i known."""
  alpha, sigma = _signal_noise(at)
  table = {name: np.zeros_like(at) for name in ("c_x", "c_last_x", "c_x0", "c_x0_1", "c_x0_2")}
  table["c_x"][0] = 1.0
  for i in range(1, len(at)):
    h = at[i] - at[i - 1]
    shrink = np.expm1(-h)
    if i == 1:
      rho, rho_older, r = 0.5, 0.0, 1.0
    else:
      r = (at[i - 2] - at[i - 1]) / h
      phi_2 = shrink / -h - 1.0
      phi_3 = phi_2 / -h - 0.5
      b = np.array([phi_2, 2.0 * phi_3]) / shrink
      rho_older, rho = np.linalg.solve(np.array([[1.0, 1.0], [r, 1.0]]), b)
    scale = -alpha[i] * shrink
    table["c_last_x"][i] = sigma[i] / sigma[i - 1]
    table["c_x0"][i] = scale * rho
    table["c_x0_2"][i] = scale * rho_older / r
    table["c_x0_1"][i] = scale * (1.0 - rho - rho_older / r)
  return table


def sample(
  denoise: Denoiser,
  process: Process,
  sampler: Sampler,
  x_T: jax.Array,
  keys: jax.Array | None = None,
  carry: Any = None,
  noise: jax.Array | None = None,
) -> jax.Array:
  """Runs the sampler from x_T to x_0 inside one `lax.scan`.

  With 'ddpm' it draws from the learned reverse chain (LGC-VD Eq. 4).

  Args:
    denoise: (x_t, t (b,), carry) -> (prediction, carry); conditions are closed over.
    process: the process that the denoiser was trained for.
    sampler: from `make_sampler`.
    x_T: (b, ...) starting noise.
    keys: (b,) one PRNG key per sample, needed where `sampler.stochastic` unless `noise` is given.
      A sample's noise depends only on its own key.
    carry: first value of the denoiser's carry.
    noise: (n, b, ...) standard normal, the noise of every step instead of that from `keys`.

  Returns:
    (b, ...) x_0, float32.

  Raises:
    ValueError: the sampler is stochastic, but there are neither keys nor noise.
  """
  if sampler.stochastic and keys is None and noise is None:
    raise ValueError("This sampler adds noise: give `keys`, one PRNG key per sample, or `noise`.")
  if keys is not None:
    chex.assert_shape(keys, x_T.shape[:1])
  if noise is not None:
    chex.assert_shape(noise, (sampler.num_steps, *x_T.shape))

  def body(loop: tuple[SamplerState, Any], i: jax.Array) -> tuple[tuple[SamplerState, Any], None]:
    state, carry = loop
    t = jnp.full(x_T.shape[:1], jnp.asarray(sampler.timesteps)[i])
    prediction, carry = denoise(state.x, t, carry)
    added = None if noise is None else noise[i]
    if sampler.stochastic and noise is None and keys is not None:
      step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
      added = jax.vmap(lambda key: jax.random.normal(key, x_T.shape[1:]))(step_keys)
    return (sampler.step(process, i, state, prediction, added), carry), None

  start = (sampler.start(x_T.astype(jnp.float32)), carry)
  (state, _), _ = jax.lax.scan(body, start, jnp.arange(sampler.num_steps))
  return state.x
