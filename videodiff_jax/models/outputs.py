"""The output of a module, as a type checker can follow it."""

from typing import Any

from flax import linen as nn


def output(module: nn.Module, params: Any, *inputs: Any, **settings: Any) -> Any:
  """Applies a module whose variables stay as they are.

  `Module.apply` is typed as if changed variables might stand beside its output.

  Args:
    module: to apply.
    params: its variables.
    *inputs: its arguments.
    **settings: as of `Module.apply`, without `mutable`.
  """
  return module.apply(params, *inputs, **settings)
