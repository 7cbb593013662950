"""The door of every command: what people type and what machines do ends in one sentence."""

import errno
import os
import signal
import sys
import threading
import time

import jax
import pytest

from tests import commands
from tests.commands import ROOT
from videodiff_jax import command

DIGITS = f"--config={ROOT}/configs/glober_digits.py:smoke"
SHIPPED = f"--workdir={ROOT}/experiments/pretrained/glober_digits"
LONG = "a" * 300


def in_buckets(*names: str) -> list[tuple[list[str], str, int]]:
  """Wrong arguments: addresses in object storage, for flags whose paths lie on disks alone."""
  return [
    ([f"--{name}={scheme}://bucket/x"], f"'{scheme}://bucket/x' is an address; only files", 2)
    for name in names for scheme in ("s3", "gs")
  ]  # fmt: skip


# Command -> (right arguments, its flags of paths, (wrong arguments, what is said, exit status)).
WRONG = {
  "data.prepare": (
    ["--dataset=video_folder", "--out=store", "--source=."],
    ("out", "source"),
    [
      (["--size=0"], "--size=0", 2),
      (["--size=1000000000"], "--size=1000000000", 2),
      (["--num_frames=1.5"], "--num_frames=1.5", 2),
      (["--seed=-1"], "--seed=-1", 2),
      (["--seed=4294967296"], "--seed=4294967296", 2),
      (["--workers=1000000"], "--workers=1000000", 2),
      (["--fold=4"], "--fold=4", 2),
      (["--source=/no/such/folder"], "'/no/such/folder' is no folder", 1),
      (["--dataset=nope"], "Unknown dataset 'nope'", 1),
      ([f"--out={LONG}"], "File name too long", 1),
      (["--out=/proc/nothing/store"], "(/proc/nothing", 1),
      (["--source=captioned"], "captions.jsonl, line 1: byte 0xe9 is not UTF-8", 1),
      *in_buckets("out", "source"),
    ],
  ),
  "experiments.tools.convert": (
    ["--kind=clip", "--out=folder", "--source=nothing"],
    ("out", "source"),
    [
      ([], "No file or folder", 1),
      (["--kind=nope"], "--kind=nope", 2),
      (["--export"], "either --export or --kind", 2),
      (["--kind=", "--export", "--allow=x"], "--kind=", 2),
      ([f"--source={LONG}"], "File name too long", 1),
      ([f"--source={__file__}"], "is damaged, or neither a safetensors", 1),
      *in_buckets("out", "source"),
    ],
  ),
  "experiments.main": (
    ["--mode=sample", SHIPPED],
    ("workdir", "input", "out", "notes", "config", "prompts"),
    [
      *(
        ([f"--{name}={value}"], f"--{name}={value}", 2)
        for name in ("guidance_scale", "frame_times", "start", "end")
        for value in ("nan", "inf", "-1", "1e38", "x", "")
      ),
      *(
        ([f"--{name}={value}"], f"--{name}={value}", 2)
        for name in (
          "seed", "num_videos", "num_frames", "steps", "class_label", "trajectories", "past",
          "future", "gap",
        )
        for value in ("-1", "1.5", "nan", str(10**30), "")
      ),
      (["--frame_times=0,,1"], "--frame_times=0,,1", 2),
      (["--protocol=nope"], "--protocol is not supported by --mode=sample", 1),
      (["--cache=latents"], "--cache is not supported by --mode=sample", 1),
      (["--stage=kl_vae"], "It is for --mode=train", 1),
      (["--input=x.mp4"], "--input is not supported by --mode=sample", 1),
      (["--table=glober_1a"], "It is for --mode=evaluate, --mode=benchmark", 1),
      (["--mode=report", "--seed=1"], "--seed is not supported by --mode=report", 1),
      (["--mode=report", DIGITS], "--config is not supported by --mode=report", 1),
      (["--mode=doctor", "--seed=1"], "--seed is not supported by --mode=doctor", 1),
      (["--mode=redraw", "--seed=1"], "--seed is not supported by --mode=redraw", 1),
      ([DIGITS, "--config.model.dit.depth=9"], "--config.model.dit.depth=9 is not supported", 1),
      ([DIGITS, "--config.data.dir=x"], "--config.data.dir=x is not supported", 1),
      (["--mode=train", DIGITS, "--gap=3"], "--gap is not supported by --mode=train", 1),
      (["--prompts=missing.txt"], "--prompts: no file missing.txt", 1),
      ([f"--workdir={LONG}"], "File name too long", 1),
      (["--mode=train", DIGITS, f"--workdir={LONG}"], "File name too long", 1),
      ([f"--config={ROOT}/README.md"], "README.md is no configuration", 2),
      ([f"--config={ROOT}/experiments/results/kl_vae_f8/held_out.png"], "is no configuration", 2),
      ([f"--config={LONG}"], "No configuration", 2),
      (["--config=raises.py"], "raises.py: get_config failed (KeyError: 'oh')", 2),
      (["--config=exits.py"], "exits.py is no configuration, or has an error (SystemExit", 2),
      (["--config=missing.py"], "missing.py is no configuration, or has an error (Module", 2),
      (["--config=dict.py"], "dict.py: get_config returns a dict, not a ConfigDict", 2),
      (["--config=empty.py"], "--config lacks keys: system", 1),
      ([DIGITS, "--config.stages[5]=kl_vae"], "config.stages[5] does not exist", 2),
      ([DIGITS, "--config.stages[x]=kl_vae"], "config.stages[x] does not exist", 2),
      ([DIGITS, "--config.seed[0]=1"], "config.seed is not a tuple", 2),
      *(
        (["--mode=train", DIGITS, f"--config.{key}={value}"], f"config.{key}: '{value}'{said}", 1)
        for key in (
          "data.dir", "data.local_dir", "expected", "text.vocabulary", "init.run", "init.kl_vae",
          "init.unet", "init.generator", "init.text_encoder",
        )
        for value, said in (("ftp://b/x", " is"), ("~nobody_at_all/x", ": no home folder is known"))
      ),
      *in_buckets("config", "notes"),
      *(
        (["--mode=train", DIGITS, f"--config.data.local_dir={scheme}://bucket/x"],
         f"config.data.local_dir: '{scheme}://bucket/x' is an address; only files", 1)
        for scheme in ("s3", "gs")
      ),
      *(
        (["--mode=ablation", DIGITS, f"--workdir={scheme}://bucket/x"], "which takes a disk", 1)
        for scheme in ("s3", "gs")
      ),
      (["--mode=plan", DIGITS], "--mode=plan takes --config or --workdir", 1),
      (["--mode=benchmark"], "--workdir is not supported by --mode=benchmark", 1),
      (["--mode=compare", "a.json"], "--workdir is not supported", 1),
    ],
  ),
}  # fmt: skip
CONFIGURATIONS = {
  "raises": "def get_config(arg=None):\n  return {}['oh']\n",
  "exits": "import sys; sys.exit(3)\n",
  "missing": "import no_such_module\n",
  "dict": "def get_config(arg=None):\n  return {'seed': 0}\n",
  "empty": "import ml_collections\n\ndef get_config(arg=None):\n"
  "  return ml_collections.ConfigDict()\n",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_people_type_is_told_in_one_sentence(tmp_path, name) -> None:
  """Stray words, addresses for paths, numbers out of range, flags of other modes, broken files."""
  right, paths, wrong = WRONG[name]
  for stem, text in CONFIGURATIONS.items():
    (tmp_path / f"{stem}.py").write_text(text)
  (tmp_path / "captioned").mkdir()
  (tmp_path / "captioned" / "captions.jsonl").write_bytes(b"\xe9")
  before = sorted(tmp_path.iterdir())
  cases = [
    *wrong,
    (["class_folders"], "Unexpected 'class_folders'", 2),
    (["--nope=1"], "'nope'", 2),
    *(
      ([f"--{flag}={scheme}://bucket/x"], f"'{scheme}://bucket/x' is an address", 2)
      for flag in paths if flag != "prompts" for scheme in ("file", "https")
    ),
    *(([f"--{flag}=~nobody_at_all/x"], "no home folder is known", 2) for flag in paths
      if flag != "prompts"),
  ]  # fmt: skip
  ended = commands.run(name, [[*right, *arguments] for arguments, _, _ in cases], tmp_path)
  assert len(ended) == len(cases)
  problems = [
    f"{arguments} ended with {status}, not {code}, or lacks {part!r}: {said[-500:]}"
    for (arguments, part, code), (status, said) in zip(cases, ended)
    if status != code or part not in said or "Error: " not in said
  ]
  assert not problems, "\n".join(problems)
  assert sorted(tmp_path.iterdir()) == before


def raised(error: BaseException) -> BaseException:
  """As it is when this project's own `raise` made it."""
  try:
    raise error
  except BaseException as caught:
    return caught


@pytest.mark.parametrize("number", command._FAULTS)
@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_faults_of_the_machine_are_told_with_the_file(number, kind) -> None:
  words = os.strerror(number)
  if kind is OSError:
    message = command.user_message(OSError(number, words, "some/file"))
    assert message.startswith(f"{words} (some/file). ")
  else:  # as array_record and tensorstore put it
    error = RuntimeError(f"UNKNOWN: Error writing some/file: {words}\nframes of C++")
    message = command.user_message(error)
    assert words in message and "some/file" in message and "C++" not in message
  assert message.endswith(".")


LOST = "UNKNOWN: Gloo AllGather failed: [pair.cc:538] Read error [127.0.0.1]:65171: Connection "


@pytest.mark.parametrize("words", ["reset by peer", "closed by peer"])
def test_the_loss_of_another_process_is_told(monkeypatch, words) -> None:
  error = RuntimeError(f"{LOST}{words}\nframes of C++")
  assert command.user_message(error) is None  # alone there is none to lose
  monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
  told = command.user_message(error)
  assert told.startswith("Another of the run's processes is gone") and words in told
  assert "C++" not in told and "Start all of them again" in told


def test_a_mistake_in_the_code_keeps_its_traceback() -> None:
  """Only what a `raise` of ours says is written for people."""
  with pytest.raises(ValueError) as by_the_interpreter:
    int("x")
  assert command.user_message(by_the_interpreter.value) is None
  assert command.user_message(raised(ValueError("for people"))) == "for people"
  assert command.user_message(raised(AssertionError("never"))) is None
  assert command.user_message(KeyError("loose")) is None
  with pytest.raises(ZeroDivisionError), command.door():
    1 / 0  # noqa: B018


def put_back(monkeypatch) -> None:
  """The hooks that the door sets, after the test."""
  for name in ("excepthook", "unraisablehook"):
    monkeypatch.setattr(sys, name, getattr(sys, name))


def test_noise_that_cannot_be_raised_is_left_out(monkeypatch, capsys) -> None:
  """Tensorstore's threads report through this hook."""

  class Noisy:
    def __init__(self, words: str) -> None:
      self.words = words

    def __del__(self) -> None:
      raise RuntimeError(self.words)

  put_back(monkeypatch)
  with command.door():
    Noisy("Event loop is closed")
    assert not capsys.readouterr().err
    Noisy("another")
    assert "RuntimeError: another" in capsys.readouterr().err


def test_a_ctrl_c_in_a_destructor_is_not_lost(monkeypatch, capsys) -> None:
  """As it comes inside the callback that JAX gives to the garbage collector."""

  class Interrupted:
    def __del__(self) -> None:
      raise KeyboardInterrupt

  put_back(monkeypatch)
  # A shell's background jobs ignore Ctrl-C, and so would these tests as one of them.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    with pytest.raises(SystemExit) as ended, command.door():
      Interrupted()
      for _ in range(6000):  # short waits: a signal just before a wait begins does not end it
        time.sleep(0.01)
  finally:
    signal.signal(signal.SIGINT, before)
  assert ended.value.code == command.INTERRUPTED
  assert capsys.readouterr().err == "Interrupted.\n"


@pytest.mark.parametrize(
  ("error", "shown"),
  [
    (RuntimeError("Event loop is closed"), False),
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), False),
    (KeyError("a mistake"), True),
  ],
)
def test_noise_of_callbacks_is_left_out(monkeypatch, capsys, error, shown) -> None:
  put_back(monkeypatch)
  with command.door():
    sys.excepthook(type(error), error, None)  # as C++ calls it, in whichever thread
    thread = threading.Thread(target=lambda: sys.excepthook(type(error), error, None))
    thread.start()
    thread.join()
  said = capsys.readouterr().err
  assert said.count(type(error).__name__) == 2 * shown and bool(said) == shown
  with pytest.raises(ZeroDivisionError), command.door():
    1 / 0  # noqa: B018
  assert sys.excepthook is sys.__excepthook__


@pytest.mark.parametrize(
  ("error", "status", "said"),
  [
    (KeyboardInterrupt(), 128 + signal.SIGINT, "Interrupted. Again.\n"),
    (command.Terminated(), 128 + signal.SIGTERM, "Ended by SIGTERM. Again.\n"),
    (ValueError("wrong"), 1, "Error: wrong\n"),
    (MemoryError(), 1, "Error: Out of memory: use smaller"),
    (RuntimeError("RESOURCE_EXHAUSTED: 3 GiB"), 1, "Error: Out of memory: use smaller"),
    (
      RuntimeError(f"RESOURCE_EXHAUSTED: writing a: {os.strerror(errno.ENOSPC)}"),
      1,
      "Error: RESOURCE_EXHAUSTED: writing a: No space left on device",
    ),
  ],
)
def test_how_a_command_ends(capsys, error, status, said) -> None:
  with pytest.raises(SystemExit) as ended, command.door("Again."):
    raise error
  assert ended.value.code == status
  assert capsys.readouterr().err.startswith(said)
