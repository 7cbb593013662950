"""Named protocols of predictions: videos that go on from given frames, or fill a gap."""

import dataclasses
from typing import Any

from videodiff_jax.choices import check_choice
from videodiff_jax.metrics.registry import REGISTRY, NamedProtocol

PSNR = ("frames", "video")
BEST = ("video", "released_groups")
CHOICES = ("random", "spaced")
TASKS = ("prediction", "interpolation")
FVD_GIVEN = ("true", "drawn")
FVD_TRAJECTORIES = ("first", "all", "each")


@dataclasses.dataclass(frozen=True)
class PredictionProtocol(NamedProtocol):
  """A recipe for scoring predictions.

  Videos are drawn and scored as uint8 frames 0..255, cropped to their centre square when the store
  was prepared. Image metrics use the drawn frames, FVD whole videos.

  Attributes:
    split: the store's split.
    num_videos: number of videos, with one random clip each; all where the split has no more.
    choice: how videos are chosen: 'random', or 'spaced' evenly over the split from first to last.
    flip: mirrors a random half of the clips.
    seed: seed of the choice of videos, of flips and of all noise.
    past: p, the number of given frames.
    num_frames: the number of frames drawn after them, the horizon.
    trajectories: N, the number of trajectories drawn for each video.
    sampler: kind of the sampler with `sampler_steps`; None leaves both to the configuration.
    sampler_steps: network evaluations per fragment.
    first_scored: the first frame of a video that image metrics use, counted from 0.
    psnr: 'frames' averages each frame's PSNR, at most 60 dB; 'video' takes the PSNR of the mean
      squared error over all frames.
    mse: adds a frame's squared error, summed over its pixels in [0, 1].
    ssim_window: 'gaussian' or 'uniform', see `images.ssim`; its data range is 255.
    ssim_grey: computes SSIM of 8-bit luma (ITU-R 601); otherwise it is the mean over channels.
    lpips_net: 'alex' or 'vgg', of LPIPS v0.1.
    lpips_range: the values that 0 and 255 are mapped to; LPIPS is made for (-1, 1).
    lpips_size: side that frames are resized to (bilinear, antialiased, rounded to 8 bits); None
      does not resize.
    lpips_required: if True, missing weights are an error; otherwise the score lacks LPIPS.
    best: over which trajectories the best is taken before the mean: each 'video''s own, or the
      'released_groups' of `prediction.best`. The mean over all trajectories is always given too.
    fvd_given: the given frames of drawn videos in FVD: 'true', or 'drawn' as the model redraws
      them.
    fvd_trajectories: the drawn set in FVD: the 'first' trajectory of each video or 'all' of them;
      with 'each', the FVDs of the j-th trajectories are averaged over j.
    fvd_repeat_real: repeats the real videos once for each trajectory.
    i3d_resize: how frames are resized to 224, bilinear without antialiasing: 'torch' or 'tf1', see
      `clip_features.resize_matrix`; a centre crop follows.
    gap: frames that an interpolation draws between one given frame on either side.
    tasks: the scored tasks, from `TASKS`; interpolation uses the first gap + 2 frames of a video.
  """

  split: str = "test"
  num_videos: int = 256
  flip: bool = False
  seed: int = 0
  past: int = 2
  num_frames: int = 28
  trajectories: int = 1
  sampler: str | None = None
  sampler_steps: int | None = None
  first_scored: int = 2
  psnr: str = "frames"
  mse: bool = False
  ssim_window: str = "gaussian"
  ssim_grey: bool = False
  lpips_net: str = "alex"
  lpips_range: tuple[float, float] = (-1.0, 1.0)
  lpips_size: int | None = None
  lpips_required: bool = False
  best: str = "video"
  fvd_given: str = "true"
  fvd_trajectories: str = "first"
  fvd_repeat_real: bool = False
  i3d_resize: str = "torch"
  gap: int = 6
  choice: str = "random"
  tasks: tuple[str, ...] = TASKS

  def __post_init__(self) -> None:
    for what, choices in (
      ("psnr", PSNR),
      ("best", BEST),
      ("choice", CHOICES),
      ("fvd_given", FVD_GIVEN),
      ("fvd_trajectories", FVD_TRAJECTORIES),
    ):
      check_choice(f"{what} in protocol {self.name!r}:", getattr(self, what), choices)
    for task in self.tasks or ("none",):
      check_choice(f"task in protocol {self.name!r}:", task, TASKS)
    if "interpolation" in self.tasks and self.gap + 2 > self.video_frames:
      raise ValueError(
        f"Protocol {self.name!r}: a gap of {self.gap} frames and one on either side do not fit in "
        f"videos of {self.video_frames}."
      )
    if not self.past <= self.first_scored < self.past + self.num_frames:
      raise ValueError(
        f"Protocol {self.name!r}: the first scored frame ({self.first_scored}) is none of the "
        f"drawn ones, {self.past} to {self.past + self.num_frames - 1}."
      )

  @property
  def video_frames(self) -> int:
    """Frames of a whole video: the given frames and the horizon."""
    return self.past + self.num_frames

  def settings(self) -> dict[str, Any]:
    """Returns the entries of config.sample that the protocol replaces."""
    names = ("past", "num_frames", "trajectories", "gap")
    changes: dict[str, Any] = {name: getattr(self, name) for name in names}
    if self.sampler:
      # The grid is the release's; a workdir's own sampler may have another.
      sampler = {"kind": self.sampler, "num_steps": self.sampler_steps, "grid": "spaced"}
      changes["sampler"] = sampler
    return changes


_STANDARD = PredictionProtocol(
  name="standard",
  about="This project's own. Compare its figures with one another only.",
)
_LGCVD = PredictionProtocol(
  name="lgcvd_paper_bair",
  about="LGC-VD's release (eva.py and evaluate.py, 69e5fd7) for p=2, n=28 of Table 3, which its "
  "configurations' 100 steps of DDPM and 100 trajectories a video belong to. Its faults: LPIPS "
  "sees [0, 1] instead of [-1, 1]; the best of 100 is taken over groups that are off by one "
  "file, so that each mixes two videos, the first holds 10 trajectories, and the last 9 files "
  "are dropped; test videos are mirrored at random; given frames enter FVD as the model redraws "
  "them (with the configurations' :release); real videos are repeated once for each fake one. "
  "Differs from the release: frames are rounded to 8 bits before they are scored, and videos "
  "are drawn from this project's seeds.",
  tasks=("prediction",),
  flip=True,
  trajectories=100,
  sampler="ddpm",
  sampler_steps=100,
  ssim_window="uniform",
  lpips_range=(0.0, 1.0),
  lpips_required=True,
  best="released_groups",
  fvd_given="drawn",
  fvd_trajectories="all",
  fvd_repeat_real=True,
)
_MCVD = PredictionProtocol(
  name="mcvd_bair",
  about="MCVD's runner (451da2e) for p=2, n=28 on BAIR: 10 trajectories a video, grey SSIM, "
  "LPIPS at 128 pixels, the best of each video, and the FVD of each trajectory's set against "
  "the same 256 real videos, averaged (its issue 25). Differs from it: all figures are of drawn "
  "frames rounded to 8 bits and true ones as they are stored, where MCVD takes PSNR and FVD from "
  "floats, and SSIM and LPIPS from frames truncated to 8 bits, drawn and true alike, so that 63 "
  "of the 256 levels of its true frames are one lower; videos are drawn from this project's "
  "seeds.",
  trajectories=10,
  sampler="ddpm",
  sampler_steps=100,
  psnr="video",
  ssim_grey=True,
  lpips_size=128,
  lpips_required=True,
  fvd_trajectories="each",
)
_PROTOCOLS = (
  _STANDARD,
  dataclasses.replace(
    _STANDARD,
    name="quick",
    about="'standard' on few videos, for two CPU cores. FVD of so few is biased upwards: compare "
    "it within this protocol and data set only.",
    num_videos=32,
  ),
  dataclasses.replace(
    _STANDARD,
    name="quick_prediction",
    about="'quick' without interpolation.",
    num_videos=32,
    tasks=("prediction",),
  ),
  dataclasses.replace(
    _STANDARD,
    name="best_of_10",
    about="'quick' with ten trajectories a video: the best of them, and how unlike they are.",
    num_videos=32,
    trajectories=10,
    tasks=("prediction",),
  ),
  dataclasses.replace(
    _STANDARD,
    name="smoke",
    about="Shows that the code runs. Its figures mean nothing.",
    num_videos=2,
    num_frames=8,
  ),
  _LGCVD,
  dataclasses.replace(
    _LGCVD,
    name="lgcvd_paper_cityscapes",
    about="lgcvd_paper_bair, faults and differences included, of 256 random ones of Cityscapes' "
    "1525 test videos: p=2, n=28 of Tables 1 and 5. The release's true frames are lossless: "
    "prepare the data set with --codec=png.",
  ),
  dataclasses.replace(
    _LGCVD,
    name="lgcvd_paper_cityscapes_p1",
    about="lgcvd_paper_cityscapes with p=1, the first row of Table 1. As in the release, image "
    "metrics begin at the third frame.",
    past=1,
  ),
  dataclasses.replace(
    _LGCVD,
    name="lgcvd_paper_bair_n14",
    about="lgcvd_paper_bair, faults and differences included, with n=14 (Table 3).",
    num_frames=14,
  ),
  dataclasses.replace(
    _LGCVD,
    name="lgcvd_paper_bair_p1_n15",
    about="lgcvd_paper_bair, faults and differences included, with p=1 and n=15 (Table 3). As in "
    "the release, image metrics begin at the third frame.",
    past=1,
    num_frames=15,
  ),
  PredictionProtocol(
    name="lgcvd_paper_bair_interpolation",
    about="Table 2 of LGC-VD, as its caption says: for each test video the best of 100 fillings of "
    "6 frames between two, and the mean of these. The release has no code for it that runs: which "
    "8 frames of a video (here a random place), PSNR and SSIM (here as in lgcvd_paper_bair) are "
    "not said. LPIPS sees [-1, 1].",
    past=1,
    num_frames=7,
    first_scored=1,
    trajectories=100,
    sampler="ddpm",
    sampler_steps=100,
    ssim_window="uniform",
    tasks=("interpolation",),
  ),
  _MCVD,
  dataclasses.replace(
    _MCVD,
    name="mcvd_bair_n14",
    about="mcvd_bair, differences included, with n=14 (Table 3 of LGC-VD).",
    num_frames=14,
  ),
  dataclasses.replace(
    _MCVD,
    name="mcvd_bair_p1_n15",
    about="mcvd_bair, differences included, with p=1 and n=15 (Table 3 of LGC-VD). Image metrics "
    "see all 15 predicted frames.",
    past=1,
    num_frames=15,
    first_scored=1,
  ),
  dataclasses.replace(
    _MCVD,
    name="mcvd_cityscapes",
    about="mcvd_bair, differences included, on Cityscapes: 256 test videos spaced evenly over all "
    "of them. MCVD's true frames are lossless: prepare the data set with --codec=png.",
    choice="spaced",
  ),
  PredictionProtocol(
    name="moving_mnist",
    about="Moving MNIST, 10 frames from 10, as OpenSTL's benchmark (8cac741) measures it: MSE is a "
    "frame's squared error summed over its pixels in [0, 1], and the mean over frames and videos. "
    "Differs from it: 256 test videos of unseen digits of 5,000, where it has the fixed 10,000 of "
    "Srivastava et al.; frames are rounded to 8 bits; SSIM's data range is 1, where scikit-image "
    "takes 2 of its floats and gives higher figures. One trajectory a video is scored: a sample's "
    "MSE is about twice that of the mean of what may follow, which regression draws.",
    past=10,
    num_frames=10,
    first_scored=10,
    mse=True,
    ssim_window="uniform",
    tasks=("prediction",),
  ),
  dataclasses.replace(
    _STANDARD,
    name="moving_mnist_p2",
    about="'standard' on Moving MNIST, 28 frames from 2, with the MSE of moving_mnist. Compare its "
    "figures with one another only.",
    mse=True,
    tasks=("prediction",),
  ),
  dataclasses.replace(
    _MCVD,
    name="mcvd_smmnist",
    about="mcvd_bair, differences included, on SM-MNIST: 10 frames from 5. The 256 test videos are "
    "of unseen digits of 5,000, where MCVD has 10,000 unseen ones and trains on 60,000.",
    past=5,
    num_frames=10,
    first_scored=5,
    tasks=("prediction",),
  ),
)
PROTOCOLS = REGISTRY.add(PredictionProtocol, *_PROTOCOLS)
