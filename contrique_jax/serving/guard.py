"""What every request meets first: who may ask, what an answer's headers forbid, and counting."""

from __future__ import annotations

import hmac
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contrique_jax.serving.limits import Refused
from contrique_jax.serving.metrics import Metrics

HEADER_BYTES = 16_384
LOOPBACK = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def answer(refused: Refused) -> JSONResponse:
    return JSONResponse({"error": refused.sentence}, refused.status, refused.headers)


class Guard:
    """ASGI middleware. Without a token only names of this machine are answered to, so that no page elsewhere reaches the
    server by a name that it lets point here; with one, whoever knows it."""

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, routes: tuple[str, ...], open_paths: frozenset[str], token: str | None,
        hosts: tuple[str, ...],
    ):  # fmt: skip
        """`routes`: paths that are counted by name; `open_paths`: those that need no token; `hosts`: further names of this
        server."""
        self._app, self._metrics, self._routes, self._open = app, metrics, routes, open_paths
        self._token, self._hosts = token, {*LOOPBACK, *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in self._routes else "other"
        began = time.perf_counter()

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
                self._metrics.requests.labels(route, str(message["status"])).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
            await send(message)

        try:
            self._check(scope)
        except Refused as refused:
            await answer(refused)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _check(self, scope: Scope) -> None:
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size + len(scope["query_string"]) > HEADER_BYTES:
            raise Refused(431, f"the address and headers of the request are larger than {HEADER_BYTES} bytes")
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._token is None and _name(host) not in self._hosts:
            raise Refused(
                403, f"this server does not answer to the name {_name(host)[:100]!r}; --allow-host adds names"
            )
        origin = headers.get("origin")
        elsewhere = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") or elsewhere:
            linked = scope["method"] in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
            if not linked:  # a link from elsewhere may open the page, a page from elsewhere may not use the server
                raise Refused(403, "pages of other sites may not use this server")
        if self._token is not None and scope["path"] not in self._open:
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token.encode()):
                raise Refused(
                    401, "this server wants its token; send it as the header Authorization: Bearer TOKEN",
                    {"WWW-Authenticate": "Bearer"},
                )  # fmt: skip


def _name(host: str) -> str:
    """Of HOST, HOST:PORT or [IPv6]:PORT."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
