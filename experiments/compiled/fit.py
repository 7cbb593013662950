"""--fit: searches the flags with which a configuration fits a target."""

from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from experiments.compiled import figures, programs, verdict
from experiments.compiled.targets import Target

_MOST = 12  # compilations of one program


def search(config: ConfigDict, target: Target, chosen: Sequence[str] = ()) -> Iterator[str]:
  """Changes a copy of the configuration until every program fits.

  Recomputing activations comes first, as it changes no result, then smaller parts of a batch,
  parameters split over more devices, and last a smaller batch.

  Yields:
    A line a compilation, as soon as it is done, then one with the flags with which all fit.
  """
  config = config.copy_and_resolve_references()
  given: dict[str, str] = {}
  for name in [program.name for program in programs.make(config, target, chosen)]:
    for _ in range(_MOST):
      (program,) = programs.make(config, target, [name])
      found = figures.of(program, target)
      changes = " ".join(f"--config.{key}={value}" for key, value in given.items())
      yield (
        f"{name}: {found.verdict}, {found.total / 1e9:.2f} of {found.capacity / 1e9:.1f} GB"
        f"{' with ' + changes if changes else ''}"
      )
      if found.verdict == verdict.FITS:
        break
      change = verdict.remedies(config, name, len(target.devices))
      if not change:
        yield f"{name} does not fit {target.name} with any of these flags."
        return
      key, value = change[0].removeprefix("--config.").split("=")
      given[key] = value
      set_key(config, key, value)
    else:
      yield f"{name} does not fit {target.name} after {_MOST} compilations; take more devices."
      return
  fits = " ".join(f"--config.{key}={value}" for key, value in given.items())
  yield f"Fits {target.name}: {fits or 'as it is'}"


def set_key(config: ConfigDict, key: str, text: str) -> None:
  """Sets 'a.b.c' to a value of the type that is there."""
  *groups, name = key.split(".")
  for group in groups:
    config = config[group]
  config[name] = type(config[name])(text)
