"""The formulas that golden files hold as text, evaluated with jax.numpy and nothing else."""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

_OPERATORS: dict[type, Callable[..., Any]] = {
  ast.Add: operator.add,
  ast.Sub: operator.sub,
  ast.Mult: operator.mul,
  ast.Div: operator.truediv,
  ast.FloorDiv: operator.floordiv,
  ast.Mod: operator.mod,
  ast.Pow: operator.pow,
  ast.UAdd: operator.pos,
  ast.USub: operator.neg,
}
_LIBRARIES = (jnp, jax.nn)  # a name means what the first of them that has it says


def evaluate(text: str, values: Mapping[str, Any]) -> Any:
  """The value of a formula.

  Args:
    text: numbers, names, arithmetic and calls, as Python writes them.
    values: arrays and functions by name; they come before functions of jax.numpy and jax.nn.

  Raises:
    ValueError: the text is no such formula; it is not run.
  """
  try:
    tree = ast.parse(text.strip(), mode="eval").body
  except SyntaxError as error:
    raise ValueError(f"{text!r} is no formula: {error.msg}") from error

  def value_of(node: ast.expr) -> Any:
    match node:
      case ast.Constant(value=int() | float() as number):
        return number
      case ast.Name(id=name) if name in values:
        return values[name]
      case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="jnp" | "np" | "torch"), attr=name):
        return function(name)
      case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
        return _OPERATORS[type(op)](value_of(operand))
      case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
        return _OPERATORS[type(op)](value_of(left), value_of(right))
      case ast.Call(func=called, args=arguments, keywords=keywords):
        named = {word.arg: value_of(word.value) for word in keywords if word.arg}
        return value_of(called)(*map(value_of, arguments), **named)
    raise ValueError(f"{ast.unparse(node)!r} in {text!r} is neither a name, a number nor a call")

  def function(name: str) -> Any:
    for library in _LIBRARIES:
      if not name.startswith("_") and hasattr(library, name):
        return getattr(library, name)
    raise ValueError(f"{name!r} in {text!r} is neither given nor of jax.numpy or jax.nn")

  return value_of(tree)


def right_side(text: str) -> str:
  """'eps(x, t) = 0.1 * x; a note' -> '0.1 * x'."""
  return text.split(";")[0].split("=", 1)[1]


def branches(text: str) -> dict[str, str]:
  """'cond: eps*2, uncond: minimum(eps, 0)' -> the formula of each name."""
  parts = re.split(r"(?:^|,)\s*(\w+)\s*:", text)
  return dict(zip(parts[1::2], parts[2::2]))
