"""Named protocols for sets of clips: FVD of generated or reconstructed clips to real ones."""

import dataclasses

from videodiff_jax.choices import check_choice
from videodiff_jax.metrics.registry import REGISTRY, NamedProtocol

DRAWN = ("generated", "reconstruction")
COVARIANCES = ("unbiased", "population")


@dataclasses.dataclass(frozen=True)
class ClipProtocol(NamedProtocol):
  """A recipe for scoring a set of drawn clips against a set of real clips.

  Clips are uint8 frames 0..255, cropped to their centre square when the store was prepared.

  Attributes:
    drawn: the drawn set: 'generated' clips (a conditional model gets the conditions of random real
      videos), or the 'reconstruction' of real clips.
    num_real: number of random real videos, with one random clip each; all where there are fewer.
    num_drawn: number of drawn clips; at most the number of real clips for a reconstruction.
    num_frames: frames of a clip, consecutive at the configuration's stride.
    splits: the splits that real clips come from.
    jpeg_quality: saves drawn frames as JPEG of this quality (4:2:0) and reads them again; None does
      not.
    covariance: 'population' divides by n, 'unbiased' by n - 1.
    i3d_resize: how frames are resized to 224, bilinear without antialiasing: 'torch' or 'tf1'.
    seed: seed of the choice of clips and of all noise.
  """

  drawn: str = "generated"
  num_real: int = 2048
  num_drawn: int = 2048
  num_frames: int = 16
  splits: tuple[str, ...] = ("train", "test")
  jpeg_quality: int | None = None
  covariance: str = "unbiased"
  i3d_resize: str = "torch"
  seed: int = 0

  def __post_init__(self) -> None:
    for what, choices in (("drawn", DRAWN), ("covariance", COVARIANCES)):
      check_choice(f"{what} in protocol {self.name!r}:", getattr(self, what), choices)


_STYLEGANV = ClipProtocol(
  name="styleganv_fvd2048_16f",
  about="StyleGAN-V's fvd2048_16f as GLOBER's release calls it: 2048 clips of real videos of all "
  "splits, one of each, against 2048 generated ones saved as JPEG of quality 75. Its --mirror has "
  "no effect: the metric turns it off. Differs from it: which videos where there are more than "
  "2048 (random, there the first by name); the resizing to 224 inside its detector file could not "
  "be read and is taken to be torch's; real frames are what the prepared store holds.",
  jpeg_quality=75,
  covariance="population",
)
_PROTOCOLS = (
  _STYLEGANV,
  dataclasses.replace(
    _STYLEGANV,
    name="styleganv_fvd2048_128f",
    about="StyleGAN-V's fvd2048_128f: as styleganv_fvd2048_16f, of 128 frames each.",
    num_frames=128,
  ),
  dataclasses.replace(
    _STYLEGANV,
    name="glober_reconstruction",
    about="styleganv_fvd2048_16f of reconstructions in place of generated clips, as in GLOBER "
    "Tables 4 and 6. Which videos the authors reconstruct is not said: here they are the real "
    "clips themselves. PSNR and SSIM are this project's addition.",
    drawn="reconstruction",
  ),
  ClipProtocol(
    name="quick",
    about="For two CPU cores: held-out clips against few generated ones. FVD of so few is biased "
    "upwards: compare it within this protocol and data set only.",
    num_real=64,
    num_drawn=64,
    splits=("test",),
  ),
  ClipProtocol(
    name="lgcvd_paper_bair_generation",
    about="For LGC-VD Table 4, of which the release has no evaluation: as many generated videos of "
    "30 frames as BAIR has test videos, and those. How many the authors drew is not said.",
    num_real=256,
    num_drawn=256,
    num_frames=30,
    splits=("test",),
  ),
)
CLIP_PROTOCOLS = REGISTRY.add(ClipProtocol, *_PROTOCOLS)
# Protocols for LGC-VD's unconditional generation.
GENERATED_VIDEOS = ("lgcvd_paper_bair_generation",)
