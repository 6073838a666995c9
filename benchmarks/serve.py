"""What `contrique-jax serve` answers a second on this machine, and what becomes of it when strangers mean no good.

First 1, 8 and 32 clients, each with one request at a time of one photograph for SECONDS: every answer must be the score that
the photograph had when it was sent alone. A client that is told to come later (429) does. Then some 200 uploads of
`hostile_uploads.py`, 8 at a time: each must be answered in words, and the server be there, within its memory.

  python benchmarks/serve.py                                  # scenes of 512 x 384
  python benchmarks/serve.py --photographs PHOTOS --seconds 60 --flags=--no-maps
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from hostile_uploads import Hostile, hostile_uploads
from PIL import Image

from contrique_jax.data.scenes import authentic_scene, pristine_scene

CLIENTS = (1, 8, 32)
TIGHT = ["--body-seconds", "4", "--decode-seconds", "5"]  # of the server that hostile uploads are sent to
Place = tuple[str, int]


@contextmanager
def server(*flags: str) -> Iterator[tuple[Place, subprocess.Popen[str], list[float]]]:
    """(where it listens, its process, peaks of resident memory in MB: its own, and of any process that it started)."""
    command = [sys.executable, "-m", "contrique_jax.serve", "--port", "0", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"http://([\d.]+):(\d+)", line)
    if found is None:
        sys.exit(line)
    place = found[1], int(found[2])
    said: list[str] = []
    threading.Thread(target=lambda: said.extend(process.stderr), daemon=True).start()  # type: ignore[arg-type]
    peaks = [0.0, 0.0]
    threading.Thread(target=_watch, args=[process.pid, peaks], daemon=True).start()
    while json.loads(_ask(place, "GET", "/healthz")[1])["status"] != "ok":
        time.sleep(0.5)
    try:
        yield place, process, peaks
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        print(f"after SIGTERM: exit {code}" + "".join(f"\n  {line.rstrip()}" for line in said))


def _watch(number: int, peaks: list[float]) -> None:
    while os.path.exists(f"/proc/{number}/status"):
        for file in Path("/proc").glob("[0-9]*/status"):
            try:
                told = dict(line.split(":\t", 1) for line in file.read_text().splitlines() if ":\t" in line)
                mine = int(file.parent.name) == number
                if mine or int(told["PPid"]) == number:
                    peaks[not mine] = max(peaks[not mine], int(told["VmRSS"].split()[0]) / 1024)
            except (OSError, KeyError, ValueError):
                continue
        time.sleep(0.2)


def _ask(
    place: Place, method: str, path: str, body: bytes | None = None, headers: Any = None, seconds: float = 660
) -> Any:
    connection = http.client.HTTPConnection(*place, timeout=seconds)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


class Client:
    """Asks one thing after the other on one connection, until the time is up."""

    def __init__(self, place: Place, photographs: list[bytes], scores: list[float], until: float, first: int):
        self.seconds: list[float] = []
        self.outcomes: Counter[str] = Counter()
        connection = http.client.HTTPConnection(*place, timeout=300)
        number = first
        while time.monotonic() < until:
            which = number % len(photographs)
            began = time.monotonic()
            try:
                connection.request("POST", "/v1/score", photographs[which], {"Content-Type": "image/jpeg"})
                response = connection.getresponse()
                answer = json.loads(response.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.outcomes[f"lost ({type(error).__name__})"] += 1
                connection.close()
                continue
            if response.status == 429:
                self.outcomes["told to come later"] += 1
                time.sleep(float(response.headers["Retry-After"]))
                continue
            right = response.status == 200 and abs(answer["results"][0]["score"] - scores[which]) < 0.01
            self.outcomes["right" if right else f"wrong ({response.status})"] += 1
            self.seconds.append(time.monotonic() - began)
            number += 1


def load(place: Place, photographs: list[bytes], seconds: float) -> None:
    scores = []
    for photograph in photographs:
        scores.append(json.loads(_ask(place, "POST", "/v1/score", photograph)[1])["results"][0]["score"])
    print(
        "| clients | answers | answers/s | CPU s each | p50 [s] | p99 [s] | right | other |\n|---|---|---|---|---|---|---|---|"
    )
    for count in CLIENTS:
        began, spent = time.monotonic(), _cpu_seconds(place)
        with ThreadPoolExecutor(count) as pool:
            asked = [pool.submit(Client, place, photographs, scores, began + seconds, 7 * i) for i in range(count)]
            clients = [one.result() for one in asked]
        took = [value for client in clients for value in client.seconds]
        outcomes = sum((client.outcomes for client in clients), Counter())
        right = outcomes.pop("right", 0)
        p50, p99 = statistics.median(took), float(np.percentile(took, 99))
        other = ", ".join(f"{how} {number}" for how, number in sorted(outcomes.items())) or "none"
        rate, cost = len(took) / (time.monotonic() - began), (_cpu_seconds(place) - spent) / len(took)
        print(
            f"| {count} | {len(took)} | {rate:.1f} | {cost:.2f} | {p50:.2f} | {p99:.2f} | {right} | {other} |",
            flush=True,
        )


def _cpu_seconds(place: Place) -> float:
    """Of the server, not of its decoders: what other programs of this machine do hardly changes it."""
    found = re.search(r"^process_cpu_seconds_total (\S+)", _ask(place, "GET", "/metrics")[1].decode(), re.M)
    return float(found[1]) if found else float("nan")


def said_to(place: Place, upload: Hostile) -> tuple[str, str]:
    """What became of it, and in which words."""
    if upload.wire:
        return _on_the_wire(place, upload)
    if upload.headers is None:
        border = b"\r\n--border--\r\n"
        head = b'--border\r\nContent-Disposition: form-data; name="i"; filename="x"\r\n\r\n'
        body, headers = head + upload.data + border, {"Content-Type": "multipart/form-data; boundary=border"}
    else:
        body, headers = upload.data, upload.headers
    try:
        status, text, _ = _ask(place, "POST", "/v1/score", body, headers)
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        return "lost", type(error).__name__
    return _outcome(status, text)


def _outcome(status: int, text: bytes) -> tuple[str, str]:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = {"error": text.decode("utf-8", "replace")} if status in (400, 503) else {}
    found = answer.get("results", [answer])[0]
    if "score" in found and status == 200:
        return "scored", f"{found['score']:.1f}"
    sentence = found.get("error", "")
    plain = 10 < len(sentence) < 400 and "Traceback" not in sentence and sentence.isprintable() and 400 <= status < 500
    return ("refused in words" if plain else "other"), f"{status}: {sentence or text[:200]!r}"


def _on_the_wire(place: Place, upload: Hostile) -> tuple[str, str]:
    found = b""
    with socket.create_connection(place, timeout=30) as wire:
        try:
            for part in upload.wire:
                wire.sendall(part)
                time.sleep(upload.pause)
            if upload.may_close and not upload.pause:
                return "left", "it did not wait"
        except OSError:
            pass
        try:
            while chunk := wire.recv(1 << 16):
                found += chunk
                if b"\r\n\r\n" in found and found.rstrip().endswith((b"}", b".")):
                    break
        except OSError as error:
            return ("hung up on", type(error).__name__) if upload.may_close else ("lost", type(error).__name__)
    if not found:
        return ("hung up on" if upload.may_close else "lost"), "nothing came back"
    head, _, text = found.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if b"chunked" in head.lower():
        text = b"".join(text.split(b"\r\n")[1::2])
    return ("passed over", "200") if status == 200 else _outcome(status, text)


def attack(place: Place, process: subprocess.Popen[str], peaks: list[float], photograph: bytes, seed: int) -> None:
    right = json.loads(_ask(place, "POST", "/v1/score", photograph)[1])["results"][0]["score"]
    before, uploads = list(peaks), list(hostile_uploads(seed))
    found: dict[str, Counter[str]] = {}
    with ThreadPoolExecutor(8) as pool:
        for upload, (outcome, words) in zip(uploads, pool.map(lambda one: said_to(place, one), uploads), strict=True):
            found.setdefault(upload.kind, Counter())[outcome] += 1
            expected = {"refused in words", "left"} | ({"scored", "passed over"} if upload.may_score else set())
            expected |= {"hung up on"} if upload.may_close else set()
            if outcome not in expected:
                print(f"  not as it should be: {upload.kind}, {upload.name}: {outcome}, {words}")
    print("\n| uploads | of which |\n|---|---|")
    for kind, outcomes in found.items():
        print(
            f"| {sum(outcomes.values())} {kind} | "
            + ", ".join(f"{how} {n}" for how, n in outcomes.most_common())
            + " |"
        )
    after = json.loads(_ask(place, "POST", "/v1/score", photograph)[1])["results"][0]["score"]
    metrics = _ask(place, "GET", "/metrics")[1].decode()
    died = re.search(r"^contrique_decoders_died (\S+)", metrics, re.M)
    print(
        f"{len(uploads)} uploads; alive: {process.poll() is None}; a photograph's score before and after: {right} and {after}; "
        f"peak of resident memory: server {before[0]:.0f} MB before, {peaks[0]:.0f} after, a decoder {peaks[1]:.0f}; decoders "
        f"that died: {float(died[1]) if died else -1:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, help="a folder of JPEG files (default: scenes of 512 x 384)")
    parser.add_argument("--seconds", type=float, default=60, help="for each number of clients (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("load", "hostile"))
    parser.add_argument("--flags", default="", help="further ones of the server, in one word")
    options = parser.parse_args()
    if options.photographs:
        photographs = [path.read_bytes() for path in sorted(options.photographs.rglob("*.jpg"))[:40]]
        if not photographs:
            sys.exit(f"{options.photographs}: no file *.jpg is in this folder")
    else:
        photographs = []
        for i in range(20):
            stream, scene = io.BytesIO(), pristine_scene(0, i) if i % 2 else authentic_scene(0, i)
            Image.fromarray(scene).resize((512, 384)).save(stream, "JPEG", quality=90)
            photographs.append(stream.getvalue())
    flags = options.flags.split()
    if options.only != "hostile":
        with server(*flags) as (place, _, _):
            load(place, photographs, options.seconds)
    if options.only != "load":
        with server(*flags, *TIGHT) as (place, process, peaks):
            attack(place, process, peaks, photographs[0], options.seed)


if __name__ == "__main__":
    main()
