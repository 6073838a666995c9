"""The command `contrique-jax serve`: a page to drop images on, and the same as JSON."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib.util import find_spec

from contrique_jax.errors import Parser, UserError, run_verb

TOKEN = "CONTRIQUE_TOKEN"
NEEDED = {"starlette": "starlette", "uvicorn": "uvicorn", "prometheus_client": "prometheus-client"}
HELP = {
    "files": "images in one request",
    "file_megabytes": "of one image",
    "request_megabytes": "of one request",
    "uploads_megabytes": "of all requests that are not answered yet",
    "image_megapixels": "of one image, by its header",
    "body_seconds": "for a request to arrive",
    "decode_seconds": "to decode one image, in a process of its own that is ended then",
    "answer_seconds": "from the last byte of a request to its answer",
    "queue": "images not answered yet; beyond that requests get 429 and Retry-After",
    "batch": "images that go through the network together",
    "wait_milliseconds": "for which the first image of a batch waits for others",
    "connections": "open at a time",
    "drain_seconds": "after SIGTERM or Ctrl-C, for what was accepted",
}


def main(argv: Sequence[str]) -> None:
    """Raises UserError if a package is missing, the port is in use, others could reach it without a token, or the model
    needs a reference."""
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing and not {"-h", "--help"} & set(argv):
        raise UserError(f'serve: it needs {", ".join(missing)}: pip install "contrique-jax[serve]".')
    from contrique_jax.inference.flags import add_model_flags
    from contrique_jax.serving.limits import Limits

    parser = Parser(
        prog="contrique-jax serve",
        description="A page on which images are dropped for their scores, and the same as JSON (POST /v1/score; /openapi.json "
        "describes it). Nothing that is sent is kept. SIGTERM and Ctrl-C let what was accepted finish.",
        epilog="Examples: contrique-jax serve; contrique-jax serve --port 8080 --model runs/first --probe mine.npz; "
        "curl -F image=@PHOTO.jpg http://127.0.0.1:8000/v1/score",
    )
    add_model_flags(parser, default=None)
    parser.add_argument("--probe", metavar="P.npz", help="from contrique-jax evaluate --probe; it goes with a --model")
    parser.add_argument(
        "--host", default="127.0.0.1", help="where to listen (default: %(default)s, this machine alone)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--token", metavar="WORD",
        help=f"what clients must send as Authorization: Bearer WORD (default: ${TOKEN}, which lists of processes do not show)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="without a token: a further name to answer to"
    )
    parser.add_argument("--no-maps", action="store_true", help="no heat maps, which is up to a third faster")
    parser.add_argument("--decoders", type=int, default=0, metavar="N", help="decoding processes (default: one a core)")
    for field in fields(Limits):
        kind = int if field.type == "int" else float
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(
            flag, type=kind, default=field.default, metavar="X", help=f"{HELP[field.name]} (default: %(default)s)"
        )
    flags = parser.parse_args(argv)
    limits = Limits(**{field.name: getattr(flags, field.name) for field in fields(Limits)})
    token = flags.token if flags.token is not None else os.environ.get(TOKEN)
    _check(flags.host, token, flags.decoders)
    if not 0 <= flags.port < 1 << 16:
        raise UserError(f"--port {flags.port}: give a number from 0 to 65535.")

    from contrique_jax.serving.app import make_app
    from contrique_jax.serving.engine import Engine
    from contrique_jax.serving.server import listen, make_server
    from contrique_jax.serving.service import Service

    listener = listen(flags.host, flags.port)
    with listener:
        engine = Engine(
            flags.model, flags.probe, max_megapixels=flags.max_megapixels, memory=flags.memory, maps=not flags.no_maps
        )
        service = Service(engine, limits, flags.decoders)
        server = make_server(make_app(service, token=token, hosts=tuple(flags.allow_host)), service, limits)
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        how = ", with the token at its end: #token=WORD" if token is not None else ""
        print(f"serving {engine.name} on http://{shown}:{port}/{how} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        server.run(sockets=[listener])


def _check(host: str, token: str | None, decoders: int) -> None:
    if token is not None and (len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token):
        raise UserError(
            f"--token (or ${TOKEN}): take 8 ASCII characters or more without spaces (openssl rand -hex 16)."
        )
    try:
        here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = False
    if not here and token is None:
        raise UserError(
            f"--host {host}: others could use this server; give a --token WORD (or ${TOKEN}), or listen on 127.0.0.1."
        )
    if decoders < 0:
        raise UserError(f"--decoders {decoders}: give 0 (one a core) or more.")


if __name__ == "__main__":
    sys.exit(run_verb(main))
