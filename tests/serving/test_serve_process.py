"""The server as it is started: where it says that it is, and how it ends."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from contrique_jax.inference.extractor import Extractor
from contrique_jax.networks.model_folder import load_model
from tests.planted import probe_of, tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture
def started(tmp_path):
    """A server of its own, and where it listens."""
    tiny_model(tmp_path / "model")
    probe_of(Extractor(*load_model(tmp_path / "model")), np.random.default_rng(0)).save(tmp_path / "probe.npz")
    command = [sys.executable, "-m", "contrique_jax.serve", "--port", "0", "--decoders", "1"]
    command += ["--model", str(tmp_path / "model"), "--probe", str(tmp_path / "probe.npz")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    found = re.search(r"http://(127\.0\.0\.1):(\d+)/", process.stderr.readline())
    yield process, (found[1], int(found[2]))
    process.kill()
    process.wait()


def test_sigterm_lets_what_was_begun_finish(started, tmp_path):
    process, place = started
    Image.effect_noise((64, 48), 90).convert("RGB").save(tmp_path / "a.png")
    image = (tmp_path / "a.png").read_bytes()
    connection = http.client.HTTPConnection(*place, timeout=60)
    connection.putrequest("POST", "/v1/score")
    connection.putheader("Content-Length", str(len(image)))
    connection.endheaders(image[:100])
    while b"waiting" not in http_get(place, "/healthz"):
        pass
    process.send_signal(signal.SIGTERM)
    with pytest.raises(OSError):  # no further ones
        while True:
            http_get(place, "/healthz")
    connection.send(image[100:])
    answer = connection.getresponse()
    assert answer.status == 200 and "score" in json.loads(answer.read())["results"][0]
    assert process.wait(30) == 0 and process.stderr.read() == ""


def http_get(place, path):
    with socket.create_connection(place, timeout=5) as wire:
        wire.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return b"".join(iter(lambda: wire.recv(65536), b""))
