"""Reads the text of a compiled program: cycles with trip counts, collectives, names of operations.

A TPU's compiler writes its estimate of an instruction's cycles beside it. The body of a loop is
written once, so that its cycles count as often as the loop turns, and of the branches of a
conditional only the dearest one counts.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Sequence

COLLECTIVES = (
  "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
  "collective-broadcast",
)  # fmt: skip
_BITS = {"pred": 8, "token": 0, "opaque": 0}
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|called_computations)=%?([\w.\-]+)")
_BRANCHES = re.compile(
  r"\bbranch_computations=\{([^}]*)\}|\b(?:true|false)_computation=%?([\w.\-]+)"
)
# Parts of JAX's names of operations that are not of our code.
_FUNCTION = re.compile(r"^jit\([^)]*\)/")
_WRAPPERS = re.compile(r"\b(?:jit|pjit|jvp|transpose|vmap|rematted_computation|checkpoint)\(")
_METHOD = re.compile(r"\.(?:<lambda>|_\w+)$")  # a module's method, beside the module's own name
_LOOPS = {
  "", "body", "checkpoint", "closed_call", "cond", "eval_jaxpr", "rematted_computation", "while"
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One instruction of a computation.

  Attributes:
    name: its name.
    shape: the text of its shape.
    opcode: what it does, such as 'fusion'.
    operands: the text between its parentheses.
    attributes: the text after them.
  """

  name: str
  shape: str
  opcode: str
  operands: str
  attributes: str

  @property
  def inputs(self) -> list[str]:
    """The names of its operands."""
    return re.findall(r"%([\w.\-]+)", self.operands)

  @property
  def cycles(self) -> int | None:
    """The compiler's estimate of one execution; None where it has none."""
    found = _CYCLES.search(self.attributes)
    return int(found[1]) if found else None

  @property
  def op_name(self) -> str:
    """The name that JAX gave the operation, a path of transformations and modules; '' for none."""
    found = _OP_NAME.search(self.attributes)
    return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Collective:
  """The collectives of one kind in one execution of the program, on one device.

  Attributes:
    kind: one of COLLECTIVES.
    count: how many are executed.
    size: bytes of their results, or of their operands where these are larger.
  """

  kind: str
  count: int
  size: int


class Module:
  """A compiled program."""

  def __init__(self, text: str):
    """Parses what `Compiled.as_text()` returns.

    Raises:
      ValueError: the text has no entry computation.
    """
    self._computations: dict[str, dict[str, Instruction]] = {}
    self._entry = ""
    current: dict[str, Instruction] = {}
    for line in text.splitlines():
      if header := _HEADER.match(line):
        current = self._computations.setdefault(header[2], {})
        if header[1]:
          self._entry = header[2]
      elif instruction := _parse(line):
        current[instruction.name] = instruction
    if not self._entry:
      raise ValueError("The text of the compiled program has no entry computation.")

  @functools.cached_property
  def cycles(self) -> int:
    """Estimated cycles of one execution on one device; those of custom calls are not known."""
    return self._cost(self._entry)

  @functools.cached_property
  def executions(self) -> list[tuple[Instruction, int]]:
    """Every instruction that is executed, with how often; of branches only the dearest one's.

    Instructions inside fusions count, too, so that collectives there are seen. Their cycles are
    those of the fusion.
    """
    times: collections.Counter[str] = collections.Counter()
    self._count(self._entry, 1, times)
    return [
      (instruction, count)
      for name, count in times.items()
      for instruction in self._computations[name].values()
    ]

  def collectives(self) -> list[Collective]:
    """The collectives, by kind."""
    counts, sizes = collections.Counter[str](), collections.Counter[str]()
    for instruction, times in self.executions:
      # The second of an asynchronous pair has the shape of the result.
      kind = instruction.opcode.removesuffix("-done")
      if kind in COLLECTIVES:
        counts[kind] += times
        sizes[kind] += times * self._moved(instruction)
    return [Collective(kind, counts[kind], sizes[kind]) for kind in COLLECTIVES if counts[kind]]

  def dearest(self, most: int = 5) -> list[tuple[str, int]]:
    """The operations that take most: (name in our code, cycles), those of one name together."""
    found: collections.Counter[str] = collections.Counter()
    for instruction, times in self.executions:
      if instruction.cycles:
        found[readable(instruction.op_name) or instruction.opcode] += times * instruction.cycles
    return found.most_common(most)

  def unestimated(self) -> int:
    """The number of executed kernels of our own (Pallas), of which no cycles are known."""
    return sum(
      times
      for instruction, times in self.executions
      if 'custom_call_target="tpu_custom_call"' in instruction.attributes
      and instruction.cycles is None
    )

  def _moved(self, instruction: Instruction) -> int:
    result = size_of(instruction.shape)
    if instruction.opcode.endswith("-done"):
      return result
    given = [self._shape_of(instruction, name) for name in instruction.inputs]
    return max(result, sum(map(size_of, given)))

  def _shape_of(self, user: Instruction, name: str) -> str:
    for instructions in self._computations.values():
      if user.name in instructions and name in instructions:
        return instructions[name].shape
    return ""

  @functools.cache  # noqa: B019 - a module lives as long as its figures are taken
  def _cost(self, name: str) -> int:
    total = 0
    for instruction in self._computations[name].values():
      total += instruction.cycles or 0
      total += sum(times * self._cost(called) for called, times in self._calls(instruction))
    return total

  def _count(self, name: str, times: int, found: collections.Counter[str]) -> None:
    found[name] += times
    for instruction in self._computations[name].values():
      for called, inside in self._calls(instruction):
        self._count(called, times * inside, found)

  def _calls(self, instruction: Instruction) -> list[tuple[str, int]]:
    """The computations that an instruction executes, each with how often."""
    if branches := _branches(instruction):
      known = [name for name in branches if name in self._computations]
      return [(max(known, key=self._cost), 1)] if known else []
    names = [name for name in _CALLED.findall(instruction.attributes) if name in self._computations]
    if instruction.opcode in COLLECTIVES or instruction.opcode in ("reduce", "sort", "scatter"):
      return []  # the reduction of two numbers
    times = self.trips(instruction) if instruction.opcode == "while" else 1
    return [(name, times) for name in dict.fromkeys(names)]

  def trips(self, loop: Instruction) -> int:
    """How often a loop turns: as the compiler knows, else the bound that its condition compares to.

    JAX's loops of a known length count from 0 to a constant. 1 where no bound is found.
    """
    if known := _TRIPS.search(loop.attributes):
      return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
    bounds = [*self._bounds(condition[1])] if condition else []
    return max(bounds, default=1)

  def _bounds(self, name: str) -> Iterator[int]:
    for instruction in self._computations.get(name, {}).values():
      if instruction.opcode == "constant" and re.match(r"[su]\d+\[\]", instruction.shape):
        yield int(instruction.operands)
      for called in _CALLED.findall(instruction.attributes):
        yield from self._bounds(called)


def readable(op_name: str) -> str:
  """Shortens JAX's name of an operation to modules and the primitive.

  'jit(step)/transpose(jvp(DiT))/while/body/blocks/qkv/dot_general' becomes
  'backward DiT/blocks/qkv/dot_general'. Numbers of blocks become *, so that alike blocks are one.
  """
  backward = "transpose(" in op_name
  path = _WRAPPERS.sub("(", _FUNCTION.sub("", op_name))
  parts = [part.strip("()") for part in path.split("/")]
  kept = [re.sub(r"(?<=_)\d+$", "*", part) for part in parts if not _passed_over(part)]
  return ("backward " if backward else "") + "/".join(kept) if kept else ""


def _passed_over(part: str) -> bool:
  return part in _LOOPS or _METHOD.search(part) is not None


def size_of(shape: str) -> int:
  """Bytes of a shape's arrays, without padding; of a tuple's all together."""
  return sum(
    math.prod(int(n) for n in sides.split(",") if n) * _bits(kind) // 8
    for kind, sides in _ARRAY.findall(shape)
  )


def _bits(kind: str) -> int:
  if kind in _BITS:
    return _BITS[kind]
  digits = re.search(r"\d+", kind)
  return int(digits[0]) if digits else 0


def _branches(instruction: Instruction) -> Sequence[str]:
  if instruction.opcode != "conditional":
    return ()
  found = _BRANCHES.findall(instruction.attributes)
  return [
    name.strip().lstrip("%") for several, one in found for name in (several or one).split(",")
  ]


def _parse(line: str) -> Instruction | None:
  """Parses 'NAME = SHAPE OPCODE(OPERANDS), ATTRIBUTES'; None for another line."""
  found = _INSTRUCTION.match(line)
  if not found:
    return None
  name, rest = found.groups()
  end = _closing(rest, 0) if rest.startswith("(") else rest.find(" ")
  shape, rest = rest[:end], rest[end:].lstrip()
  opcode, parenthesis, _ = rest.partition("(")
  if not parenthesis:
    return None
  end = _closing(rest, len(opcode))
  return Instruction(name, shape, opcode, rest[len(opcode) + 1 : end - 1], rest[end:])


def _closing(text: str, start: int) -> int:
  """Returns the place after the parenthesis that closes the one at `start`."""
  depth = 0
  for match in re.finditer(r"[()]", text[start:]):
    depth += 1 if match[0] == "(" else -1
    if not depth:
      return start + match.end()
  return len(text)
