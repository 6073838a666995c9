"""uvicorn around the application: slow headers are cut off, SIGTERM lets what was accepted finish."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from contrique_jax import signals
from contrique_jax.errors import UserError
from contrique_jax.serving.guard import HEADER_BYTES
from contrique_jax.serving.limits import Limits
from contrique_jax.serving.service import Service

HEADER_SECONDS = 10.0  # for a request's headers to arrive, or what is left of a body that was refused


class Connection(H11Protocol):
    """uvicorn's, with a limit on how long a request may take to begin."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._begun()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._await_request()
        else:
            self._begun()

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(f"This is no HTTP request, or its headers are larger than {HEADER_BYTES} bytes.")

    def _await_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _begun(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Server(uvicorn.Server):
    """Which leaves signals to `signals.Signals`: the first drains, the second ends the process."""

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self._service = service

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        current = signals.current()
        if current is None:
            yield
            return
        current.deferred = True
        current.told.append(self.drain)
        try:
            if current.first is not None:  # it came while the model was loaded
                self.drain()
            yield
        finally:
            current.told.remove(self.drain)

    def drain(self, number: int = 0) -> None:
        """Takes no further connections, answers what it has, and ends."""
        self._service.draining = True
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits there. Raises UserError if that cannot be."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=256)
    except (OSError, OverflowError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        why = (
            "it is in use"
            if number == errno.EADDRINUSE
            else os.strerror(number)
            if number and number > 0
            else str(error)
        )
        raise UserError(
            f"--host {host} --port {port}: the server cannot listen there ({why}); name another."
        ) from error


def make_server(app: Starlette, service: Service, limits: Limits) -> Server:
    """uvicorn's server for it; `run(sockets=[...])` serves until a signal or `drain`. Not on uvloop,
    which takes the wake-up on signals for itself."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # what strangers do wrong is told to them alone
    config = uvicorn.Config(
        app, loop="asyncio", http=Connection, ws="none", lifespan="on", log_config=None, log_level="error", access_log=False,
        server_header=False, proxy_headers=False, timeout_keep_alive=10,
        timeout_graceful_shutdown=max(int(limits.drain_seconds), 1),
        limit_concurrency=limits.connections, h11_max_incomplete_event_size=HEADER_BYTES,
    )  # fmt: skip
    return Server(config, service)
