"""What stands between a stranger and the network: processes that may die, batches, slow clients."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from contrique_jax.errors import BrokenImage
from contrique_jax.serving import server
from contrique_jax.serving.batcher import Batcher
from contrique_jax.serving.decoders import Decoders
from contrique_jax.serving.limits import Limits, Refused
from contrique_jax.serving.uploads import Uploads


def png(width=40, height=30):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def stopped(decoders):
    """The number of its only process, which has been stopped."""
    (process,) = [decoders._idle.get()]
    decoders._idle.put(process)
    os.kill(process._process.pid, signal.SIGSTOP)
    return process._process.pid


def test_a_decoder_that_dies_or_hangs_costs_one_image():
    decoders = Decoders(Limits(decode_seconds=2), 1, megapixels=16, side=None)

    async def decode():
        return (await decoders.decode(png(), "x", False)).image

    try:
        whole = asyncio.run(decode())
        np.testing.assert_array_equal(whole, np.asarray(Image.open(io.BytesIO(png()))))
        stopped(decoders)
        with pytest.raises(BrokenImage, match=r"longer than 2 s"):
            asyncio.run(decode())
        victim = stopped(decoders) if asyncio.run(decode()) is not None else 0
        threading.Timer(0.3, os.kill, (victim, signal.SIGKILL)).start()
        with pytest.raises(BrokenImage, match="brought down"):
            asyncio.run(decode())
        np.testing.assert_array_equal(asyncio.run(decode()), whole)
        assert decoders.died == 2
    finally:
        decoders.close()


def test_images_of_several_requests_go_together_and_fail_apart():
    batches = []

    def judge(images):
        batches.append(list(images))
        if "bad" in images:
            raise ValueError("bad")
        return [image.upper() for image in images]

    async def run():
        batcher = Batcher(judge, most=3, seconds=0.05)
        first = [asyncio.create_task(batcher.submit(name)) for name in "abcd"]
        given_up = asyncio.create_task(batcher.submit("e"))
        await asyncio.sleep(0)
        given_up.cancel()
        running = asyncio.create_task(batcher.run())
        found = await asyncio.gather(*first)
        failed = await asyncio.gather(batcher.submit("bad"), batcher.submit("good"), return_exceptions=True)
        after = await batcher.submit("f")
        running.cancel()
        return found, failed, after

    found, failed, after = asyncio.run(run())
    assert found == list("ABCD") and after == "F"
    assert batches == [list("abc"), ["d"], ["bad", "good"], ["bad"], ["good"], ["f"]]
    assert type(failed[0]) is ValueError and failed[1] == "GOOD"


def request(*bodies, seconds=0.0):
    """One that arrives in parts, so many seconds between them."""
    parts = [{"type": "http.request", "body": body, "more_body": i + 1 < len(bodies)} for i, body in enumerate(bodies)]

    async def receive():
        await asyncio.sleep(seconds)
        return parts.pop(0)

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"image/png")], "query_string": b""}
    return Request(scope, receive)


async def refused(uploads, asked):
    with pytest.raises(Refused) as error:
        async with uploads.of(asked):
            pass
    return error.value.status


def test_bodies_that_are_slow_or_too_much_together_are_refused():
    async def run():
        slow = await refused(Uploads(Limits(body_seconds=0.05)), request(b"x", b"y", seconds=0.04))
        uploads = Uploads(Limits(uploads_megabytes=0.003))
        async with uploads.of(request(b"x" * 2000)):
            full = await refused(uploads, request(b"x" * 2000))
        async with uploads.of(request(b"x" * 2000)) as (upload,):
            return slow, full, len(upload.data), uploads.held

    assert asyncio.run(run()) == (408, 429, 2000, 2000)


@pytest.fixture
def address(monkeypatch):
    """Of a server that says yes, and waits for headers for a short time."""
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)

    class Nobody:
        draining = False

    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("yes"), methods=["POST", "GET"])])
    running = server.make_server(app, Nobody(), Limits(connections=8))
    listener = server.listen("127.0.0.1", 0)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()
    running.drain()
    thread.join(10)
    assert not thread.is_alive()


def talk(address, *parts, pause=0.0):
    """What comes back, until the server closes, and after how many seconds."""
    began = time.monotonic()
    with socket.create_connection(address, timeout=5) as wire:
        try:
            for part in parts:
                wire.sendall(part)
                time.sleep(pause)
        except OSError:  # it has closed already
            pass
        found = b""
        while chunk := wire.recv(1 << 16):
            found += chunk
    return found, time.monotonic() - began


def test_headers_that_are_slow_huge_or_none(address):
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    assert b"yes" in talk(address, head + b"Connection: close\r\n\r\n")[0]
    found, seconds = talk(address, head, *[b"X: y\r\n"] * 4, pause=0.15)
    assert found == b"" and seconds < 2
    assert b"larger than 16384 bytes" in talk(address, head + b"X: " + b"y" * 100_000)[0]
    assert b"no HTTP request" in talk(address, b"\x16\x03\x01 hello\r\n\r\n")[0]
    # what is left of a body that nobody wanted
    unread = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    found, seconds = talk(address, unread, *[b"x"] * 4, pause=0.15)
    assert b"yes" in found and seconds < 2
