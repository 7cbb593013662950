"""How hosts find each other. What they agree on is tested by two processes: process.py."""

import http.server
import threading
from collections.abc import Iterator

import jax
import pytest
from jax._src.clusters import cloud_tpu_cluster

from videodiff_jax.training import hosts, launchers, roll_call

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


SLURM = {
  "SLURM_NTASKS": "4",
  "SLURM_PROCID": "2",
  "SLURM_LOCALID": "0",
  "SLURM_JOB_ID": "77",
  "SLURM_STEP_NODELIST": "node[1-4]",
}
OPEN_MPI = {
  "OMPI_COMM_WORLD_SIZE": "2",
  "OMPI_COMM_WORLD_RANK": "1",
  "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
GKE = {"TPU_WORKER_HOSTNAMES": "localhost,b", "TPU_WORKER_ID": "1"}
ALL_VARIABLES = (ADDRESS, COUNT, INDEX, "SLURM_PTY_PORT", *GKE, *SLURM, *OPEN_MPI, "JAX_PLATFORMS")


@pytest.fixture
def joined(monkeypatch) -> Iterator[list[tuple]]:
  """What JAX is initialised with, in place of waiting for others."""
  for name in ALL_VARIABLES:
    monkeypatch.delenv(name, raising=False)
  calls: list[tuple] = []
  monkeypatch.setattr(roll_call, "wait", lambda *_: None)
  monkeypatch.setattr(jax.distributed, "initialize", lambda *settings, **_: calls.append(settings))
  launchers._tpu_slice.cache_clear()
  yield calls
  launchers._tpu_slice.cache_clear()


@pytest.fixture
def tpu_vm(monkeypatch) -> Iterator[dict[str, str]]:
  """A machine with TPU chips; what Google Cloud's metadata server says there, at first nothing."""
  attributes: dict[str, str] = {}

  class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
      found = attributes.get(self.path.rpartition("/")[2])
      self.send_response(404 if found is None else 200)
      self.end_headers()
      self.wfile.write((found or "").encode())

    def log_message(self, *_: object) -> None: ...

  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{server.server_port}")
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)  # JAX sets it where there are no chips
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between attempts
    yield attributes
    server.shutdown()


@pytest.mark.parametrize(
  ("variables", "expected", "index"),
  [
    ({}, [], 0),
    ({"SLURM_NTASKS": "1", "TPU_WORKER_HOSTNAMES": "localhost"}, [], 0),
    ({ADDRESS: "first:1234", COUNT: "4", INDEX: "3"}, [("first:1234", 4, 3)], 3),
    (SLURM, [("node1:61517", 4, 2)], 2),
    (SLURM | {ADDRESS: "first:1234"}, [("first:1234", 4, 2)], 2),
    (OPEN_MPI | {ADDRESS: "first:1234"}, [("first:1234", 2, 1)], 1),
    (GKE, [], 0),  # where no TPU is
  ],
)
def test_joins_the_hosts_that_the_environment_names(
  joined, monkeypatch, variables, expected, index
) -> None:
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  assert launchers.index() == index
  hosts.join()
  assert joined == expected
  assert launchers.several() == bool(expected) and not launchers.on_tpu_pod()


@pytest.mark.parametrize(
  ("workers", "variables", "expected"),
  [
    ("w:0:127.0.0.1,w:1:10.0.0.2", {}, [("127.0.0.1:8482", 2, 1)]),
    ("w:0:127.0.0.1,w:1:10.0.0.2", {"JAX_PLATFORMS": "cpu"}, []),
    ("w:0:127.0.0.1,w:1:10.0.0.2", {ADDRESS: "a:1", COUNT: "2", INDEX: "1"}, [("a:1", 2, 1)]),
    ("w:0:127.0.0.1", {}, []),  # a TPU VM of its own
    ("", GKE, [("localhost:8482", 2, 1)]),
    ("", {}, []),  # neither, such as a Colab notebook
  ],
)
def test_workers_of_a_tpu_slice_join_by_themselves(
  joined, monkeypatch, tpu_vm, workers, variables, expected
) -> None:
  """As `gcloud ... ssh --worker=all` starts them, which sets no variable, and as GKE does."""
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  if workers:
    tpu_vm |= {"worker-network-endpoints": workers, "tpu-env": ""}
    tpu_vm["agent-worker-number"] = str(workers.count(","))
  hosts.join()
  assert joined == expected
  assert launchers.several() == bool(expected) and launchers.index() == len(expected)


def test_tpu_chips_outside_of_google_cloud_run_alone(joined, monkeypatch, tpu_vm, caplog) -> None:
  monkeypatch.setenv("GCE_METADATA_IP", "127.0.0.1:1")
  with caplog.at_level("WARNING", logger="absl"):
    hosts.join()
  assert not joined and "so it runs alone" in caplog.text


@pytest.mark.parametrize(
  ("variables", "said"),
  [
    *((SLURM | {name: ""}, f"{name} not set") for name in SLURM if name != "SLURM_NTASKS"),
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "SLURM_LOCALID, SLURM_JOB_ID, SLURM_STEP"),
    (SLURM | {"SLURM_PTY_PORT": "4711"}, "a shell of srun --pty"),
    (SLURM | {"SLURM_NTASKS": ""}, ""),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_LOCAL_RANK not set"),
    ({"OMPI_COMM_WORLD_SIZE": ""}, ""),
  ],
)
def test_a_launcher_s_variables_by_halves_name_nobody(
  joined, monkeypatch, caplog, variables, said
) -> None:
  """As in a batch script that does not use srun: one process, which tells so, and never waits."""
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  with caplog.at_level("WARNING", logger="absl"):
    hosts.join()
  assert not joined and not launchers.several() and not launchers.index()
  assert said in caplog.text and bool(said) == bool(caplog.records)


@pytest.mark.parametrize(
  ("variables", "message"),
  [
    ({ADDRESS: "first:1234"}, f"^{COUNT}, {INDEX} not set. Several hosts need all of"),
    ({COUNT: "2", INDEX: "0"}, f"^{ADDRESS} not set. Several"),
    ({ADDRESS: "first:1234", COUNT: "2", INDEX: ""}, f"^{INDEX} not set. Several"),
    ({ADDRESS: "first", COUNT: "2", INDEX: "0"}, f"{ADDRESS} must be the first host's HOST:"),
    ({ADDRESS: "first:1", COUNT: "two", INDEX: "0"}, f"{COUNT} must be a whole number, not 'two'"),
    ({ADDRESS: "first:1", COUNT: "2", INDEX: "2"}, "numbered from 0 to 1"),
    ({"SLURM_NTASKS": "many"}, "SLURM_NTASKS must be a whole number, not 'many'"),
    (OPEN_MPI, f"does not find the first of the hosts that the launcher started. Set {ADDRESS}"),
  ],
)
def test_variables_set_by_halves(joined, monkeypatch, variables, message) -> None:
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(ValueError, match=message):
    hosts.join()
  assert not joined
