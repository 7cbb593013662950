"""Converts published weights to our form, or back.

  python -m videodiff_jax.pretrained.convert --kind=sd-v1 --source=v1-5-pruned.safetensors --out=DIR
  python -m videodiff_jax.pretrained.convert --kind=lgcvd --source=bair.pt \
    --config=configs/lgcvd_bair.py:release --out=DIR
  python -m videodiff_jax.pretrained.convert --export --source=DIR --out=FILE.safetensors

Kind lgcvd makes a workdir, as if it had been trained here, for --workdir of experiments.main. Other
kinds make a folder of parameters for config.init, which also accepts the published files.
--export turns such a folder back into the published file.
"""

import dataclasses
import hashlib
import json
import pathlib
import tempfile
from collections.abc import Callable, Collection, Sequence

import jax
import jax.numpy as jnp
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

import videodiff_jax
from videodiff_jax import command, config_flag, typed
from videodiff_jax.choices import summarise
from videodiff_jax.glober import networks as glober_networks
from videodiff_jax.glober import pretrained_init
from videodiff_jax.lgcvd import stages as lgcvd_stages
from videodiff_jax.pretrained import architectures, clip_text, sources
from videodiff_jax.pretrained.files import tensor_files, weights_folder
from videodiff_jax.pretrained.names import clip, lgcvd
from videodiff_jax.training.checkpoints import Checkpoints, fingerprint
from videodiff_jax.training.flops import count_parameters
from videodiff_jax.training.state import TrainState
from videodiff_jax.training.workdir import write_config

KINDS = (*architectures.PUBLISHED, "lgcvd")

# File name -> bytes, sha256.
Files = dict[str, tuple[int, str]]


@dataclasses.dataclass(frozen=True)
class Converted:
  """The result of converting a source.

  Attributes:
    files: files of the source.
    tensors: number of tensors found in the source and used.
    parameters: network -> number of parameters.
    notes: remarks about other content of the source, a sentence each.
    usage: how to use the output; {out} stands for its path.
    write: writes the output to a folder, given the files' digests.
  """

  files: tuple[pathlib.Path, ...]
  tensors: int
  parameters: dict[str, int]
  notes: tuple[str, ...]
  usage: str
  write: Callable[[pathlib.Path, Files], None]


def convert(
  kind: str,
  source: pathlib.Path,
  config: ConfigDict | None,
  out: pathlib.Path,
  allow: Collection[str] = (),
) -> tuple[Converted, Files]:
  """Converts `source` and writes `out` atomically.

  Args:
    kind: one of `KINDS`.
    source: published file or folder.
    config: configuration of the networks inside (for lgcvd also of the workdir's sampling); None
      takes the published networks.
    out: folder to write; it must be missing or empty.
    allow: patterns of tensors that may be unused and of our parameters that may be missing.

  Returns:
    The conversion, and the size and sha256 of each file.

  Raises:
    FileExistsError: `out` is not empty.
    FileNotFoundError: there is no `source`.
    ImportError: the package that reads the file is not installed.
    ValueError: the source does not fit this kind or this configuration.
  """
  _check_free(out)
  if not source.exists():
    raise FileNotFoundError(f"No file or folder {source}.")
  if kind == "lgcvd":
    converted = _lgcvd(source, config)
  else:
    converted = _networks(kind, source, config, allow)
  files = {file.relative_to(source.parent).as_posix(): _digest(file) for file in converted.files}
  out.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
    made = pathlib.Path(folder) / out.name
    converted.write(made, files)
    made.rename(out)
  return converted, files


def export(source: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
  """Turns a converted folder back into the published file; writes it atomically.

  Args:
    source: folder from `convert`, of any kind but lgcvd.
    out: path to write, which must not exist: a file, or a folder if the published source was one
      with subfolders.

  Returns:
    The files written.

  Raises:
    FileExistsError: `out` exists.
    ValueError: `source` is not such a folder, or is damaged.
  """
  _check_free(out)
  weights_folder.check(source)
  out.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
    made = pathlib.Path(folder) / out.name
    files = [out / file.relative_to(made) for file in weights_folder.export(source, made)]
    made.rename(out)
  return files


def _check_free(out: pathlib.Path) -> None:
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise FileExistsError(f"{out} is not empty. Choose another --out; nothing was written.")


def _digest(path: pathlib.Path) -> tuple[int, str]:
  with path.open("rb") as file:
    return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _networks(
  kind: str, source: pathlib.Path, config: ConfigDict | None, allow: Collection[str]
) -> Converted:
  """Converts the networks of a kind, and notes the other content of the file."""
  modules = dict(architectures.PUBLISHED[kind])
  if config is not None:
    if config.system != "glober":
      raise ValueError(f"Kind {kind} is for GLOBER; the configuration is of {config.system!r}.")
    of_config = pretrained_init.modules(glober_networks.build(config))
    modules |= {name: of_config[name] for name in modules.keys() & of_config}
  opened = tensor_files.read(source)
  tensors = opened.tensors
  found = {name: sources.find_in(name, opened, source) for name in modules}
  if kind == "sd-v1" and sources.names_of("text_encoder", tensors):
    found["text_encoder"] = sources.find_in("text_encoder", opened, source)
  if "text_encoder" in found:  # of any size
    activation = clip_text.activation(source)
    modules["text_encoder"] = clip.architecture(found["text_encoder"].shapes, activation)
  fits = {
    name: sources.fit(one, architectures.shapes(modules[name]), allow)
    for name, one in found.items()
  }
  notes = [f"allowed: {sentence}" for fit in fits.values() for sentence in fit.allowed]
  aside = {name: tensor for name, tensor in tensors.items() if sources.is_aside(name)}
  if aside:
    notes.append(f"kept aside, no parameters of a network: {', '.join(aside)}")
  left = tensors.keys() - aside.keys()
  for name in fits:
    left -= set(sources.names_of(name, tensors))
  for name in fits:
    if beside := {key for key in left if sources.is_beside(name, key)}:
      whole = f"beside the {sources.NETWORKS[name].title}, left alone: {len(beside)} tensors"
      notes.append(f"{whole} ({summarise(sorted(beside))})")
      left -= beside
  for name in sources.NETWORKS.keys() - fits.keys():
    if others := left.intersection(sources.names_of(name, tensors)):
      notes.append(f"not of this kind, left alone: {len(others)} tensors of {name}")
      left -= others
  allowed = {name for name in left if sources.is_allowed(allow, name)}
  notes += [f"allowed: {name} is left over" for name in sorted(allowed)]
  if strangers := sorted(left - allowed):
    raise ValueError(
      f"{source} holds tensors that kind {kind} does not know: {summarise(strangers)}. "
      "If they may be left out, name them with --allow=NAME,... (* stands for anything)."
    )

  def write(folder: pathlib.Path, files: Files) -> None:
    placed = {name: fit.placed for name, fit in fits.items()}
    meta = {"kind": kind, "source": files, "allow": list(allow)}
    weights_folder.write(folder, placed, aside, meta)
    if "text_encoder" in fits:
      settings = json.dumps({"hidden_act": modules["text_encoder"].activation})
      (folder / clip_text.CONFIG).write_text(settings + "\n")

  keys = " ".join(f"--config.init.{name}={{out}}" for name in fits)
  return Converted(
    files=opened.files,
    tensors=sum(len(fit.placed) for fit in fits.values()),
    parameters={name: fit.size for name, fit in fits.items()},
    notes=tuple(notes),
    usage=f"{{out}} is for {keys}",
    write=write,
  )


def _lgcvd(source: pathlib.Path, config: ConfigDict | None) -> Converted:
  """Converts LGC-VD's bair.pt or cityscapes.pt: both copies of both networks."""
  (name,) = lgcvd_stages.NAMES
  if config is None:
    raise ValueError("Kind lgcvd needs --config, for example configs/lgcvd_bair.py:release.")
  if config.system != "lgcvd":
    raise ValueError(f"The configuration is of system {config.system!r}; kind lgcvd needs its own.")
  checkpoint = lgcvd.read_checkpoint(source)
  wanted = jax.eval_shape(lgcvd_stages.make_stage(config, name).init, jax.random.key(0))
  try:
    params, ema_params = (
      {"params": lgcvd.lgcvd_params(copy, wanted.params["params"])}
      for copy in (checkpoint.raw, checkpoint.ema)
    )
  except ValueError as error:
    raise ValueError(f"{error} What the authors published needs their variant :release.") from error
  params, ema_params = jax.tree.map(jnp.asarray, (params, ema_params))
  state = lgcvd_stages.trained_elsewhere(config, params, ema_params, checkpoint.step)

  def write(workdir: pathlib.Path, files: Files) -> None:
    write_config(workdir, config)
    ((file, (_, sha256)),) = files.items()
    _save(workdir, name, config, state, {"file": file, "sha256": sha256})

  return Converted(
    files=(source,),
    tensors=len(jax.tree.leaves((params, ema_params))),
    parameters={network: count_parameters(tree) for network, tree in params["params"].items()},
    notes=(f"step {checkpoint.step:,}",),
    usage="{out} is a workdir: python -m experiments.main --mode=predict --workdir={out}",
    write=write,
  )


def _save(
  workdir: pathlib.Path, name: str, config: ConfigDict, state: TrainState, source: dict[str, str]
) -> None:
  """Writes the checkpoint with everything that `training.loop` expects."""
  step, train = int(state.step), config.train[name]
  checkpoints = Checkpoints(workdir / name / "checkpoints")
  meta = {
    "config": json.loads(config.to_json()),
    "code": videodiff_jax.__version__,
    "frozen": fingerprint({}),
    "examples": step * train.batch_size,
    "source": source,
  }
  checkpoints.save(step, state, meta)
  checkpoints.wait()
  checkpoints.close()


def report(converted: Converted, files: Files, out: pathlib.Path) -> str:
  """Describes in a few lines what was read, and how to use the output."""
  parameters = ", ".join(f"{name} {count:,}" for name, count in converted.parameters.items())
  return "\n".join(
    [
      *(f"{name}: {size:,} bytes, sha256 {sha256}" for name, (size, sha256) in files.items()),
      f"  {converted.tensors} tensors, parameters: {parameters}",
      *(f"  {note}" for note in converted.notes),
      converted.usage.format(out=out),
    ]
  )


def main(argv: Sequence[str]) -> None:
  config_flag.refuse_words(argv)
  logging.set_verbosity(logging.WARNING)  # orbax logs every file
  options = flags.FLAGS
  if bool(options.kind) == options.export:
    choose = f"Error: Give either --export or --kind, one of {', '.join(KINDS)}."
    command.fail(choose, command.BAD_ARGUMENTS)
  given = [name for name in ("config", "allow") if options[name].present]
  if options.export and given:
    command.fail(
      f"Error: --{given[0]} is not supported by --export; remove it.", command.BAD_ARGUMENTS
    )
  source, out = (pathlib.Path(path).absolute() for path in (options.source, options.out))
  with command.door():
    if options.export:
      print(*(f"{file}: {file.stat().st_size:,} bytes" for file in export(source, out)), sep="\n")
    else:
      print(report(*convert(options.kind, source, options.config, out, options.allow), out))


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_enum("kind", None, KINDS, "Kind of the published weights.")
  typed.define_path("source", None, "The published file or folder.", required=True, on_disk=True)
  typed.define_path("out", None, "The folder to write.", required=True, on_disk=True)
  flags.DEFINE_bool(
    "export", False, "Turns --source, a converted folder, back into the published file."
  )
  flags.DEFINE_list(
    "allow", [], "Tensors that may be unused in the source or missing in ours; * is any text."
  )
  config_flags.DEFINE_config_file(
    "config", None, "configs/NAME.py[:variant,variant]; by default the published networks."
  )


if __name__ == "__main__":
  define_flags()
  with command.door():
    app.run(main, flags_parser=lambda argv: config_flag.parse_flags(argv, pathlib.Path()))
