"""The routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contrique_jax.serving.guard import Guard, answer
from contrique_jax.serving.limits import Refused
from contrique_jax.serving.openapi import document
from contrique_jax.serving.service import Service, Wanted

PAGE = {
    "/": ("index.html", "text/html"),
    "/style.css": ("style.css", "text/css"),
    "/main.js": ("main.js", "text/javascript"),
    "/api.js": ("api.js", "text/javascript"),
    "/cards.js": ("cards.js", "text/javascript"),
    "/draw.js": ("draw.js", "text/javascript"),
    "/compare.js": ("compare.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
API = ("/v1/score", "/v1/model", "/healthz", "/metrics", "/openapi.json")
PLAIN = {404: "there is nothing at this address", 405: "this address does not take that method"}


def make_app(
    service: Service, *, token: str | None = None, hosts: tuple[str, ...] = (), warm: bool = True
) -> Starlette:
    """The server as an ASGI application. `token`: what clients must send; `hosts`: further names it answers to."""
    files = {path: (_file(name), kind) for path, (name, kind) in PAGE.items()}

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start(warm)
        yield
        service.close()

    async def page(request: Request) -> Response:
        content, kind = files[request.url.path]
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    async def score(request: Request) -> Response:
        wanted = Wanted(map=_yes(request, "map"), thumbnail=_yes(request, "thumbnail"))
        service.admit(1)
        async with service.uploads.of(request) as uploads:
            found = await _unless_gone(request, service.score_all(uploads, wanted))
        status = 200 if any("score" in one for one in found) else 422
        return JSONResponse({"model": service.engine.extractor.model_hash, "results": found}, status)

    async def model(request: Request) -> Response:
        return JSONResponse(service.about())

    async def health(request: Request) -> Response:
        state = "draining" if service.draining else "ok" if service.warm else "warming up"
        return JSONResponse({"status": state, "waiting": service.waiting}, 503 if service.draining else 200)

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": service.metrics.content_type})

    async def openapi(request: Request) -> Response:
        return JSONResponse(document(service.limits, token is not None))

    routes = [
        *(Route(path, page, methods=["GET"]) for path in PAGE),
        Route("/v1/score", score, methods=["POST"]),
        Route("/v1/model", model, methods=["GET"]),
        Route("/healthz", health, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        Route("/openapi.json", openapi, methods=["GET"]),
    ]
    guard = Middleware(
        Guard, metrics=service.metrics, routes=(*PAGE, *API), open_paths=frozenset({*PAGE, "/healthz", "/openapi.json"}),
        token=token, hosts=hosts,
    )  # fmt: skip
    handlers: dict[Any, Any] = {Refused: _refused, HTTPException: _plain, ClientDisconnect: _gone, Exception: _failed}
    return Starlette(routes=routes, lifespan=lifespan, middleware=[guard], exception_handlers=handlers)


async def _unless_gone(request: Request, work: Any) -> Any:
    """The result of `work`, which is given up if the client goes. Raises ClientDisconnect then."""
    doing = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait([doing, gone], return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ClientDisconnect
    finally:
        for task in (doing, gone):
            task.cancel()
        await asyncio.wait([doing, gone])


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(request: Request, error: Refused) -> Response:
    return answer(error)


async def _plain(request: Request, error: HTTPException) -> Response:
    sentence = PLAIN.get(error.status_code, error.detail)
    return JSONResponse({"error": sentence}, error.status_code, error.headers)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)  # which nobody reads


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the server failed on this request; its log says more"}, 500)


def _yes(request: Request, name: str) -> bool:
    given = request.query_params.get(name, "false").lower()
    if given not in ("true", "1", "yes", "false", "0", "no"):
        raise Refused(400, f"{name}={given:.40}: say true or false")
    return given in ("true", "1", "yes")


def _file(name: str) -> bytes:
    return (resources.files("contrique_jax.serving") / "page" / name).read_bytes()
