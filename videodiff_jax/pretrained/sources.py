"""Finds each network's tensors in a source, and checks that they are complete.

A source may hold one or several networks, named as in the code that trained them or as in ours (a
folder that `weights_folder` wrote). Only names and shapes are read here, and a DiT's table of
positions.
"""

import dataclasses
import fnmatch
import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping

from videodiff_jax.choices import summarise
from videodiff_jax.pretrained.files import weights_folder
from videodiff_jax.pretrained.files.state_dict import Placed, Rules, problems, translate
from videodiff_jax.pretrained.files.tensor_files import Source, read
from videodiff_jax.pretrained.names import clip, diffusers, dit, stable_diffusion

Wanted = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Naming:
  """How one code base names the tensors of a network.

  Attributes:
    prefixes: possible prefixes of all names; '' in a file of this network only.
    marker: a name that no other naming has.
    rules: maps all names to the rules that translate them to our parameter tree.
  """

  prefixes: tuple[str, ...]
  marker: str
  rules: Callable[[Collection[str]], Rules]


@dataclasses.dataclass(frozen=True)
class Network:
  """A network that pretrained weights can be given for.

  Attributes:
    title: the network's name in messages.
    namings: the known namings of its tensors.
    adaptable: a regular expression for those of our parameters whose shape depends on the network's
      use; if they do not fit, they may be reinitialised.
    beside: a regular expression for the other tensors of the larger model that it is a part of.
  """

  title: str
  namings: tuple[Naming, ...]
  adaptable: str = "never"
  beside: str = "never"


def _always(rules: Rules) -> Callable[[Collection[str]], Rules]:
  return lambda names: rules


NETWORKS = {
  "kl_vae": Network(
    title="KL-VAE",
    namings=(
      Naming(
        ("first_stage_model.", ""),
        "encoder.down.0.block.0.conv1.weight",
        _always(stable_diffusion.KL_VAE),
      ),
      Naming(("vae/", ""), "encoder.down_blocks.0.resnets.0.conv1.weight", diffusers.kl_vae),
    ),
  ),
  "unet": Network(
    title="UNet",
    namings=(
      Naming(
        ("model.diffusion_model.", ""), "input_blocks.0.0.weight", _always(stable_diffusion.UNET)
      ),
      Naming(("unet/", ""), "down_blocks.0.resnets.0.conv1.weight", diffusers.unet),
    ),
    adaptable=r"(down_0_conv|conv_out)\.",  # the latents' channels
  ),
  "generator": Network(
    title="DiT",
    namings=(Naming(("",), "x_embedder.proj.weight", _always(dit.DIT)),),
    # Patch size and channels, learned variance, classes, text.
    adaptable=r"(patch|final_out|label_embed|token_embed|prompt)\b",
  ),
  "text_encoder": Network(
    title="CLIP text tower",
    namings=(
      Naming(
        (
          "cond_stage_model.transformer.text_model.",
          "cond_stage_model.transformer.",  # merges made by old tools
          "text_encoder/text_model.",
          "text_encoder/",  # transformers from 5.6 on, like the last prefix
          "text_model.",
          "",
        ),
        "embeddings.token_embedding.weight",
        _always(clip.CLIP_TEXT),
      ),
    ),
    beside=r"(text_encoder/)?(vision_model|visual_projection|text_projection)\..+|logit_scale",
  ),
}

# Tensors that are no parameters: a schedule's, training's, and those that are computed here.
_ASIDE = re.compile(
  r"(.*_)?(betas|alphas_cumprod(_prev)?|logvar)|posterior_\w+|scale_factor|lvlb_weights"
  r"|model_ema\.(decay|num_updates)|loss\..*|(.*\.)?position_ids|pos_embed"
)


@dataclasses.dataclass(frozen=True)
class Fit:
  """The tensors that fit one network.

  Attributes:
    placed: tensors by our path, with the network's shapes.
    reinitialised: a sentence for each parameter that is to be reinitialised instead.
    allowed: a sentence for each tensor that is missing or left over and was allowed by name.
  """

  placed: dict[str, Placed]
  reinitialised: tuple[str, ...] = ()
  allowed: tuple[str, ...] = ()

  @property
  def size(self) -> int:
    """Number of parameters found."""
    return sum(one.tensor.size for one in self.placed.values())


@dataclasses.dataclass(frozen=True)
class Found:
  """A network's tensors in a source.

  Attributes:
    network: a name in `NETWORKS`.
    path: the source's path, for errors.
    files: the files that hold the tensors.
    shapes: shapes by the name without its prefix, or by our path in a folder of ours.
    place: does what `state_dict.translate` does, given the wanted shapes.
    allow: the patterns that were allowed when a folder of ours was made.
  """

  network: str
  path: pathlib.Path
  files: tuple[pathlib.Path, ...]
  shapes: Wanted
  place: Callable[[Wanted], tuple[dict[str, Placed], dict[str, str]]]
  allow: tuple[str, ...] = ()


def find(name: str, path: pathlib.Path) -> Found:
  """Finds a network's tensors in a folder of ours, or in a source that `tensor_files.read` opens.

  Raises:
    FileNotFoundError: as `tensor_files.read`.
    ImportError: as `tensor_files.read`.
    ValueError: the source lacks the network, its position table differs, or as `tensor_files.read`.
  """
  if not weights_folder.is_weights_folder(path):
    return find_in(name, read(path), path)
  placed, allow = weights_folder.network(path, name)

  def place(wanted: Wanted) -> tuple[dict[str, Placed], dict[str, str]]:
    strangers = {key: key for key in placed if key not in wanted}
    return {key: one for key, one in placed.items() if key in wanted}, strangers

  shapes = {key: one.tensor.shape for key, one in placed.items()}
  return Found(name, path, (weights_folder.file_of(path, name),), shapes, place, allow)


def find_in(name: str, source: Source, path: pathlib.Path) -> Found:
  """Finds a network's tensors, in a naming other than ours, in an open source."""
  tensors = source.tensors
  found = _naming(name, tensors)
  if found is None:
    raise ValueError(
      f"{path} holds no {NETWORKS[name].title} in a known naming. Its {len(tensors)} tensors "
      f"begin with: {', '.join(sorted(tensors)[:3])}."
    )
  prefix, naming = found
  own = {key.removeprefix(prefix): tensors[key] for key in names_of(name, tensors)}
  if name == "generator" and dit.POSITIONS in tensors:
    dit.check_positions(tensors[dit.POSITIONS].load())

  def place(wanted: Wanted) -> tuple[dict[str, Placed], dict[str, str]]:
    placed, strangers = translate(own, naming.rules(own.keys()), wanted)
    placed = {key: dataclasses.replace(one, name=prefix + one.name) for key, one in placed.items()}
    return placed, {prefix + key: path for key, path in strangers.items()}

  return Found(name, path, source.files, {key: one.shape for key, one in own.items()}, place)


def fit(found: Found, wanted: Wanted, allow: Collection[str] = (), adapt: bool = False) -> Fit:
  """Compares the tensors found with the wanted ones.

  Args:
    found: a network's tensors.
    wanted: the network's shapes by path.
    allow: patterns (*, ?) of our paths that may be missing, and of names in the source that may be
      left over.
    adapt: whether the network's `adaptable` parameters may be reinitialised.

  Raises:
    ValueError: the network has another configuration.
  """
  placed, strangers = found.place(wanted)
  network, allow = NETWORKS[found.network], [*allow, *found.allow]
  wrong, reinitialised, allowed = [], [], []
  differences = problems(placed, strangers, wanted)
  for key, sentence in differences.items():
    our_path, their_name = strangers.get(key, key), placed[key].name if key in placed else key
    if is_allowed(allow, our_path, their_name):
      allowed.append(sentence)
    elif adapt and re.match(network.adaptable, our_path):
      reinitialised.append(sentence)
    else:
      wrong.append(sentence)
  if wrong:
    raise ValueError(
      f"The {network.title} in {found.path} has another configuration: "
      f"{summarise(wrong, separator='; ')}."
    )
  fitting = {key: one for key, one in placed.items() if key not in differences}
  return Fit(fitting, tuple(reinitialised), tuple(allowed))


def names_of(name: str, tensors: Iterable[str]) -> list[str]:
  """Returns the names of a network's tensors; none if the source lacks it."""
  found = _naming(name, tensors)
  if found is None:
    return []
  own = (key for key in tensors if key.startswith(found[0]) and not is_aside(key))
  return [key for key in own if not is_beside(name, key)]


def is_aside(key: str) -> bool:
  """Tells whether a tensor is no parameter of any network."""
  return _ASIDE.fullmatch(key) is not None


def is_beside(name: str, key: str) -> bool:
  """Tells whether a tensor belongs to the larger model that a network was published with."""
  return re.fullmatch(NETWORKS[name].beside, key) is not None


def is_allowed(allow: Collection[str], *names: str) -> bool:
  """Tells whether one of the names matches one of the patterns."""
  return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in allow)


def _naming(name: str, tensors: Iterable[str]) -> tuple[str, Naming] | None:
  for naming in NETWORKS[name].namings:
    for prefix in naming.prefixes:
      if prefix + naming.marker in tensors:
        return prefix, naming
  return None
