"""Which tensors of a file are which network's, and whether they are all of it.

A file may hold one network or several, in the naming of the code that trained it or in ours (a
folder that `weights_folder` wrote). Nothing but names and shapes is read here, and a DiT's table
of positions.
"""

import dataclasses
import fnmatch
import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping

from videodiff_jax.pretrained.files import weights_folder
from videodiff_jax.pretrained.files.state_dict import Placed, Rules, problems, told, translate
from videodiff_jax.pretrained.files.tensor_files import Source, read
from videodiff_jax.pretrained.names import clip, diffusers, dit, stable_diffusion

Wanted = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Naming:
  """How one code base calls the tensors of a network.

  Attributes:
    prefixes: before every name: '' in a file of this network alone.
    marker: a name that no other naming has.
    rules: from all names to the map into our tree.
  """

  prefixes: tuple[str, ...]
  marker: str
  rules: Callable[[Collection[str]], Rules]


@dataclasses.dataclass(frozen=True)
class Network:
  """One that weights can be given for.

  Attributes:
    title: for people.
    namings: of its tensors.
    adaptable: a regular expression of our parameters whose shape depends on the network's use:
      where they do not fit another use they may be drawn anew.
    beside: a regular expression of the other tensors of a larger model that it is a part of.
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
          "text_encoder/",  # transformers from 5.6 on, as the last
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

# Of a schedule or of training, or computed here: no parameters of a network.
_ASIDE = re.compile(
  r"(.*_)?(betas|alphas_cumprod(_prev)?|logvar)|posterior_\w+|scale_factor|lvlb_weights"
  r"|model_ema\.(decay|num_updates)|loss\..*|(.*\.)?position_ids|pos_embed"
)


@dataclasses.dataclass(frozen=True)
class Fit:
  """The tensors of one network.

  Attributes:
    placed: by our path; their shapes are the network's.
    anew: what is to be drawn anew instead, a sentence for each.
    allowed: what is missing or left over and was allowed by name, a sentence for each.
  """

  placed: dict[str, Placed]
  anew: tuple[str, ...] = ()
  allowed: tuple[str, ...] = ()

  @property
  def size(self) -> int:
    """Parameters found."""
    return sum(one.tensor.size for one in self.placed.values())


@dataclasses.dataclass(frozen=True)
class Found:
  """A network's tensors where they lie.

  Attributes:
    network: of `NETWORKS`.
    path: of the source, for errors.
    files: in which they are.
    shapes: by their name without its prefix; in a folder of ours by path.
    place: as `state_dict.translate`, given the wanted shapes.
    allow: patterns allowed when such a folder was made.
  """

  network: str
  path: pathlib.Path
  files: tuple[pathlib.Path, ...]
  shapes: Wanted
  place: Callable[[Wanted], tuple[dict[str, Placed], dict[str, str]]]
  allow: tuple[str, ...] = ()


def find(name: str, path: pathlib.Path) -> Found:
  """A network's tensors in a folder of ours, or in what `tensor_files.read` opens.

  Raises:
    FileNotFoundError, ImportError: as `tensor_files.read`.
    ValueError: the network is not there, its positions are others, or as `tensor_files.read`.
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
  """As `find`, in what is open and in somebody else's naming."""
  tensors = source.tensors
  found = _naming(name, tensors)
  if found is None:
    raise ValueError(
      f"{path} holds no {NETWORKS[name].title} in a naming known here. Its {len(tensors)} tensors "
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
  """Compares what was found with what is wanted.

  Args:
    found: a network's tensors.
    wanted: shapes by path.
    allow: patterns (*, ?) of our paths that may be missing and of their names that may be left.
    adapt: whether the network's `adaptable` parameters may be drawn anew.

  Raises:
    ValueError: the network is not the one wanted.
  """
  placed, strangers = found.place(wanted)
  network, allow = NETWORKS[found.network], [*allow, *found.allow]
  wrong, anew, allowed = [], [], []
  differences = problems(placed, strangers, wanted)
  for key, sentence in differences.items():
    our_path, their_name = strangers.get(key, key), placed[key].name if key in placed else key
    if is_allowed(allow, our_path, their_name):
      allowed.append(sentence)
    elif adapt and re.match(network.adaptable, our_path):
      anew.append(sentence)
    else:
      wrong.append(sentence)
  if wrong:
    raise ValueError(
      f"The {network.title} in {found.path} is of another configuration: {told(wrong)}."
    )
  fitting = {key: one for key, one in placed.items() if key not in differences}
  return Fit(fitting, tuple(anew), tuple(allowed))


def names_of(name: str, tensors: Iterable[str]) -> list[str]:
  """The names of a network's tensors; none where it is not there."""
  found = _naming(name, tensors)
  if found is None:
    return []
  own = (key for key in tensors if key.startswith(found[0]) and not is_aside(key))
  return [key for key in own if not is_beside(name, key)]


def is_aside(key: str) -> bool:
  """Whether a tensor is no parameter of any network."""
  return _ASIDE.fullmatch(key) is not None


def is_beside(name: str, key: str) -> bool:
  """Whether a tensor is of the larger model that a network was published as a part of."""
  return re.fullmatch(NETWORKS[name].beside, key) is not None


def is_allowed(allow: Collection[str], *names: str) -> bool:
  """Whether one of the names fits one of the patterns."""
  return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in allow)


def _naming(name: str, tensors: Iterable[str]) -> tuple[str, Naming] | None:
  for naming in NETWORKS[name].namings:
    for prefix in naming.prefixes:
      if prefix + naming.marker in tensors:
        return prefix, naming
  return None
