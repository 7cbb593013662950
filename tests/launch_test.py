"""launch/: its files are well formed, and start what they say with stand-ins for a cluster.

What trains is slow: the command lines of all three as :smoke with two processes on loopback, two of
them preempted on the way.
"""

import os
import pathlib
import random
import re
import shlex
import socket
import subprocess
import sys
from typing import Any

import pytest
import yaml
from absl import flags
from absl.testing import flagsaver

from data import prepare
from experiments import main
from tests import processes
from tests.helpers import ROOT
from videodiff_jax.training.checkpoints import Checkpoints

LAUNCH = ROOT / "launch"
SLURM, TPU, JOBSET = (
  LAUNCH / name for name in ("slurm.sh", "tpu_queued_resource.sh", "gke_jobset.yaml")
)
CONFIG = "configs/lgcvd_digits.py:smoke"

# Starts its command twice and tells each process what srun tells it. Once the file $PREEMPT names
# exists, all get a SIGTERM, in the first call.
SRUN = """
import glob, os, signal, subprocess, sys, time

words = sys.argv[1:]
while words[0].startswith("-"):
  words.pop(0)
print("srun", *words, flush=True)
of_job = {"SLURM_JOB_ID": os.environ["JOB"], "SLURM_STEP_NODELIST": "localhost",
          "SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "0"}
tasks = [subprocess.Popen(words, env=os.environ | of_job | {"SLURM_PROCID": str(i)})
         for i in range(int(os.environ.get("TASKS", "2")))]
"""
# The rest of srun, and of a connection to all workers.
WAIT = """
pattern = os.environ.get("PREEMPT") if len(tasks) > 1 else None
mark = os.environ["LOG"] + ".preempted"
while any(task.poll() is None for task in tasks):
  if pattern and glob.glob(pattern) and not os.path.exists(mark):
    open(mark, "w").close()
    for task in tasks:
      task.send_signal(signal.SIGTERM)
  time.sleep(0.05)
statuses = [task.returncode if task.returncode >= 0 else 128 - task.returncode for task in tasks]
print("ended with", *statuses, flush=True)
"""
SCONTROL = """
import os, sys
print("scontrol", *sys.argv[1:], file=open(os.environ["LOG"], "a"))
"""
# A slice is PROVISIONING when it is first asked for, and gone once its workers were preempted.
GCLOUD = (
  """
import glob, os, signal, subprocess, sys, time

words, log = sys.argv[1:], os.environ["LOG"]
print(*words, file=open(log, "a"))
states = [line.split()[3] for line in open(log) if "queued-resources" in line]
if words[2:4] == ["queued-resources", "describe"]:
  gone = os.path.exists(log + ".gone")
  before = states[len(states) - states[::-1].index("create"):].count("describe")
  print("SUSPENDED" if gone else "PROVISIONING" if before == 1 else "ACTIVE")
elif words[2:4] == ["queued-resources", "delete"] and os.path.exists(log + ".gone"):
  os.remove(log + ".gone")
elif words[2] == "tpu-vm":
  (command,) = [word.partition("=")[2] for word in words if word.startswith("--command=")]
  tasks = [subprocess.Popen(["bash", "-c", command], env=os.environ | {"WORKER": str(i)})
           for i in range(2 if "tpu_worker" in command else 1)]
  before = os.path.exists(log + ".preempted")
"""
  + "".join(f"  {line}\n" for line in WAIT.strip().splitlines())
  + """
  if os.path.exists(log + ".preempted") and not before:
    open(log + ".gone", "w").close()
  sys.exit(any(statuses))
"""
)
CURL = """
import os, sys
print(os.environ["WORKER"] if sys.argv[-1].endswith("/agent-worker-number")
      else "unknown:unknown:127.0.0.1,unknown:unknown:127.0.0.1")
"""


class Cluster:
  """A folder of stand-ins at the head of PATH, and what was asked of them."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.log = folder / "log"
    self.log.touch()
    (folder / "bin").mkdir()
    srun = SRUN + WAIT + "sys.exit(max(statuses))\n"
    for name, code in {"srun": srun, "scontrol": SCONTROL, "gcloud": GCLOUD, "curl": CURL}.items():
      self.add(name, f"#!{sys.executable}{code}")
    self.add("python3", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')

  def add(self, name: str, text: str) -> pathlib.Path:
    file = self.folder / "bin" / name
    file.write_text(text)
    file.chmod(0o755)
    return file

  def run(
    self, script: pathlib.Path, *arguments: str, timeout: float = 400, **variables: str
  ) -> tuple[int, str]:
    """Exit status and what was written; the folder is where a worker's connection begins."""
    environment = os.environ | {
      "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
      "LOG": str(self.log),
      "PYTHONPATH": str(ROOT),
      "XLA_FLAGS": re.sub(r"--xla_force_host_\S+", "", os.environ["XLA_FLAGS"]),
      "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
      "JAX_NUM_CPU_DEVICES": "1",
      # What the batch script and the TPU's script find.
      "SLURM_SUBMIT_DIR": str(ROOT),
      "SLURM_JOB_ID": "17",
      "JOB": job_of_a_free_port(),
      "PYTHON": sys.executable,
      "BUCKET": "gs://bucket",
      "PORT": str(processes.free_port()),
      "INSTALL": f"ln -sfn {ROOT} videodiff_jax",
      "POLL": "0.1",
    }
    ended = subprocess.run(
      ["bash", str(script), *arguments],
      cwd=self.folder,
      env=environment | variables,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      timeout=timeout,
    )
    return ended.returncode, ended.stdout

  def asked(self) -> list[list[str]]:
    return [line.split() for line in self.log.read_text().splitlines()]


def job_of_a_free_port() -> str:
  """The number of a job whose port, as JAX makes it of the number, nobody listens at."""
  while True:
    number = random.randrange(4096)
    with socket.socket() as tried:
      if tried.connect_ex(("127.0.0.1", 65536 - 4096 + number)):
        return str(number + 4096)


@pytest.fixture
def cluster(tmp_path) -> Cluster:
  return Cluster(tmp_path)


def check_command(words: list[str]) -> dict[str, str]:
  """The options of a command line of ours, which parses."""
  assert words[1:3] == ["-m", "experiments.main"]
  argv = [words[2], *words[3:]]
  with flagsaver.flagsaver(), pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, "argv", argv)  # where ml_collections reads --config.a.b=value
    patch.chdir(ROOT)
    assert main.parse_flags(argv)[1:] == []
    assert flags.FLAGS.mode == "train" and flags.FLAGS.config.system == "glober"
  return dict(word.lstrip("-").partition("=")[::2] for word in words[3:])


# ---- What is written in them


@pytest.mark.parametrize("script", sorted(LAUNCH.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_bash(script: pathlib.Path) -> None:
  subprocess.run(["bash", "-n", str(script)], check=True)
  assert script.stat().st_mode & 0o111 and script.read_text().startswith("#!/usr/bin/env bash\n")


def test_the_job_is_told_before_it_ends_and_may_be_requeued() -> None:
  options = dict(
    line.removeprefix("#SBATCH --").partition("=")[::2]
    for line in SLURM.read_text().splitlines()
    if line.startswith("#SBATCH ")
  )
  name, _, seconds = options["signal"].partition("@")
  assert name == "TERM" and int(seconds) >= 60  # to the processes; "B:" would be the script alone
  assert {"requeue", "nodes", "gpus-per-node", "time"} <= options.keys()
  assert options["ntasks-per-node"] == "1" and options["open-mode"] == "append"


@pytest.fixture
def documents() -> dict[str, Any]:
  return {each["kind"]: each for each in yaml.safe_load_all(JOBSET.read_text())}


def test_the_jobset_restarts_what_was_preempted_and_nothing_else(documents) -> None:
  assert documents.keys() == {"ConfigMap", "JobSet"}
  jobset = documents["JobSet"]
  assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
  reasons = {
    reason: rule["action"]
    for rule in jobset["spec"]["failurePolicy"]["rules"]
    for reason in rule["onJobFailureReasons"]
  }
  assert reasons == {
    "PodFailurePolicy": "FailJobSet",
    "BackoffLimitExceeded": "RestartJobSetAndIgnoreMaxRestarts",
  }
  (replicated,) = jobset["spec"]["replicatedJobs"]
  job = replicated["template"]["spec"]
  assert job["backoffLimit"] == 0 and job["completionMode"] == "Indexed"
  gone, ended = job["podFailurePolicy"]["rules"]
  assert (gone["action"], gone["onPodConditions"][0]["type"]) == ("Count", "DisruptionTarget")
  codes = ended["onExitCodes"]
  assert (ended["action"], codes["operator"], codes["values"]) == ("FailJob", "NotIn", [143])
  pod = job["template"]["spec"]
  assert pod["restartPolicy"] == "Never" and pod["shareProcessNamespace"]
  (container,) = pod["containers"]
  assert codes["containerName"] == container["name"]
  # All chips of the slice are asked for.
  sides = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
  chips = container["resources"]["limits"]["google.com/tpu"]
  assert job["parallelism"] == job["completions"]
  assert job["parallelism"] * chips == int(sides[0]) * int(sides[1])
  (source,) = container["envFrom"]
  assert source["configMapRef"]["name"] == documents["ConfigMap"]["metadata"]["name"]


def container_command(documents: dict[str, Any], **values: str) -> list[str]:
  """The words that Kubernetes starts, its $(NAME) replaced."""
  (replicated,) = documents["JobSet"]["spec"]["replicatedJobs"]
  (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
  given = documents["ConfigMap"]["data"] | values
  words = [*container["command"], *container["args"]]
  return [re.sub(r"\$\((\w+)\)", lambda found: given[found[1]], word) for word in words]


def test_the_jobset_s_command_parses(documents) -> None:
  words = container_command(documents, DATA="/store", WORKDIR="/run")
  assert check_command(words)["config"] == "configs/glober_sky.py"


# ---- What they start


@pytest.mark.parametrize("status", [0, 1, 143])
def test_slurm_requeues_what_sigterm_ended_alone(cluster: Cluster, status: int) -> None:
  stub = cluster.add("stub", f"#!/bin/sh\nexit {status}\n")
  ended, said = cluster.run(SLURM, "--config.mesh.fsdp=8", PYTHON=str(stub))
  assert ended == status, said
  assert cluster.asked() == ([["scontrol", "requeue", "17"]] if status == 143 else [])
  words = shlex.split(next(line for line in said.splitlines() if line.startswith("srun ")))[1:]
  options = check_command(["python", *words[1:]])
  assert options["config.mesh.fsdp"] == "8" and options["workdir"].startswith("/shared/")


def verbs(cluster: Cluster) -> list[str]:
  return [words[3] for words in cluster.asked() if words[3] != "describe"]


@pytest.mark.parametrize(("status", "preempted"), [(0, False), (1, False), (143, True)])
def test_another_slice_is_asked_for_where_one_was_preempted(
  cluster: Cluster, status: int, preempted: bool
) -> None:
  """The stand-in of Python ends well once a slice was preempted."""
  mark = cluster.folder / "log.preempted"
  cluster.add("python3", f'#!/bin/sh\necho "$@" >&2\n[ -e {mark} ] && exit 0\nexec sleep 30\n')
  if not preempted:
    cluster.add("python3", f'#!/bin/sh\necho "$@" >&2\nexit {status}\n')
  variables = {"PREEMPT": "videodiff_jax"} if preempted else {}  # which is there once installed
  ended, said = cluster.run(TPU, "--config.mesh.fsdp=8", DATA="/store", WORKDIR="/run", **variables)
  assert ended == (status if not preempted else 0), said
  once = ["create", "ssh", "ssh", "delete"]
  assert verbs(cluster) == once * (2 if preempted else 1)
  told = next(line for line in said.splitlines() if line.startswith("-m experiments.main"))
  assert check_command(["python", *told.split()])["config.mesh.fsdp"] == "8"


def test_the_doctor_comes_to_every_node(cluster: Cluster, tmp_path) -> None:
  """By the script's own command line: two processes find each other by SLURM's variables."""
  ended, said = cluster.run(
    SLURM, "--mode=doctor", CONFIG=CONFIG, DATA="", WORKDIR=str(tmp_path / "run")
  )
  assert ended == 0, said
  for i in range(2):
    assert f"host {i} of 2: " in said
  assert sorted(re.findall(r"lgcvd: rows (\S+) of a batch of 8", said)) == ["0-3", "4-7"]
  assert len(re.findall(r"^storage: .* written at \d+ MB/s, read at \d+ MB/s", said, re.M)) == 2
  assert said.count("All 2 hosts have the same versions.") == 1
  assert re.search(r"^Clocks: at most \d\.\d{3} s from the first host's", said, re.M)
  assert said.count("optional part") == 1  # the report of an installation: by the first host


# ---- What trains


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("data") / "digits"
  prepare.ensure("falling_digits", folder, size=32, num_frames=30, num_videos=20)
  return folder


def trained(workdir: pathlib.Path) -> bool:
  return Checkpoints(workdir / "lgcvd" / "checkpoints").latest_step() == 4


@pytest.fixture
def variables(store, tmp_path) -> dict[str, str]:
  return {"CONFIG": CONFIG, "DATA": str(store), "WORKDIR": str(tmp_path / "run")}


@pytest.mark.slow
def test_slurm_goes_on_after_a_preemption(cluster: Cluster, variables, tmp_path) -> None:
  """SIGTERM comes once the workdir is claimed, so while the first step compiles or soon after."""
  preempt = {"PREEMPT": str(tmp_path / "run" / "lgcvd")}
  ended, said = cluster.run(SLURM, **variables, **preempt)
  assert ended == 143 and "ended with 143 143" in said, said
  assert cluster.asked() == [["scontrol", "requeue", "17"]]
  ended, said = cluster.run(SLURM, **variables, **preempt)
  assert ended == 0 and trained(tmp_path / "run"), said


@pytest.mark.slow
def test_a_tpu_slice_is_replaced_and_training_goes_on(cluster, variables, tmp_path) -> None:
  ended, said = cluster.run(TPU, **variables, PREEMPT=str(tmp_path / "run" / "lgcvd"))
  assert ended == 0 and trained(tmp_path / "run"), said
  assert verbs(cluster) == ["create", "ssh", "ssh", "delete"] * 2


@pytest.mark.slow
def test_the_jobset_s_command_trains(documents, variables, tmp_path) -> None:
  words = container_command(documents, **variables)
  for status, said in processes.run(words[2], words[3:], 2, timeout=400):
    assert status == 0, said
  assert trained(tmp_path / "run")
