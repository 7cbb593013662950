"""--mode=plan --compile=TARGET,...: what the programs of a configuration take there, as text."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from experiments.compiled import figures, fit, programs, targets, verdict
from experiments.compiled.figures import Figures


def mode(config: ConfigDict, names: Sequence[str], chosen: Sequence[str], search: bool) -> None:
  """Compiles for every target and prints as it goes, since large programs take minutes.

  Args:
    config: the configuration.
    names: the targets' names.
    chosen: names of programs; all by default.
    search: whether to search flags with which all of them fit.

  Raises:
    UserError: a target or program that there is not, a compiler that is not installed, a batch
      that does not divide.
  """
  found = [targets.find(name) for name in names]
  made = [programs.make(config, target, chosen) for target in found]  # all errors come first
  for target, of_target in zip(found, made):
    print(heading(target), flush=True)
    if search:
      for line in fit.search(config, target, chosen):
        print(line, flush=True)
      continue
    for program in of_target:
      print(one(figures.of(program, target), config), flush=True)


def heading(target: targets.Target) -> str:
  """Says what is compiled for, and with what."""
  kind = target.devices[0].device_kind
  return (
    f"\n{target.name}: {len(target.devices)} x {kind}, {target.memory / 1e9:.1f} GB each, as "
    f"{target.compiler} compiles for it. Nothing was run there."
  )


def one(found: Figures, config: ConfigDict) -> str:
  """Returns what a program takes, as lines."""
  lines = [
    f"\n{found.program}, {found.rows} rows on a mesh of {' x '.join(map(str, found.mesh))}: "
    f"{found.verdict}, compiled in {found.compile_seconds:.0f} processor s"
  ]
  if found.memory:
    memory = found.memory
    lines.append(
      f"  GB a device: arguments {memory.argument / 1e9:.2f}, temporaries "
      f"{memory.temporary / 1e9:.2f}, outputs {memory.output / 1e9:.2f}; together "
      f"{found.total / 1e9:.2f} of {found.capacity / 1e9:.1f}"
    )
  else:
    lines.append(f"  GB a device: {found.total / 1e9:.2f} of {found.capacity / 1e9:.1f}")
  if found.verdict != verdict.FITS:
    tries = verdict.remedies(config, found.program, found.devices)
    lines.append(f"  To try: {' or '.join(tries) or 'more devices'}")
  if found.collectives:
    listed = (f"{count} {kind} ({size / 1e6:.1f} MB)" for kind, count, size in found.collectives)
    lines.append(f"  Collectives a call: {', '.join(listed)}")
  if found.cycles is not None and found.seconds is not None:
    share = f"{found.share:.2f} of peak" if found.share is not None else "peak unknown"
    lines.append(
      f"  {found.flops / 1e12:.3f} model TFLOP a device in {found.cycles / 1e6:.2f} million "
      f"estimated cycles, {found.seconds * 1e3:.1f} ms: {share}"
    )
    lines += [f"  {part:6.1%}  {name}" for name, part in found.dearest]
  if found.unestimated:
    lines.append(f"  Without {found.unestimated} kernels of ours, whose cycles are not estimated.")
  return "\n".join(lines)
