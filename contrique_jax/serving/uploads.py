"""The body of a request -> named bytes, within limits; nothing of it touches a disk."""

from __future__ import annotations

import asyncio
import ntpath
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from contrique_jax.errors import printable
from contrique_jax.serving.limits import Limits, Refused

LONGEST_NAME = 200
FIELDS = 16  # of a form, beside its files
RAW = ("application/octet-stream", "application/x-www-form-urlencoded", "")  # curl --data-binary says the second
HOW = "send an image's bytes as the body, with Content-Type image/*, or a multipart form with files"


@dataclass(frozen=True)
class Upload:
    """An image as a client sent it; `name` is only ever said back to it."""

    name: str
    data: bytes


class Uploads:
    """Reads bodies. `held`: bytes of all those that are in use."""

    def __init__(self, limits: Limits):
        self.limits, self.held = limits, 0

    @asynccontextmanager
    async def of(self, request: Request) -> AsyncIterator[list[Upload]]:
        """Context: the images of a request. Raises Refused for what is too much, too slow or no upload."""
        taken = [0]
        try:
            try:
                async with asyncio.timeout(self.limits.body_seconds):
                    found = await self._read(request, taken)
            except TimeoutError as error:
                raise Refused(
                    408, f"the request took longer than {self.limits.body_seconds:g} s to arrive; send less at a time"
                ) from error
            yield found
        finally:
            self.held -= taken[0]

    async def _read(self, request: Request, taken: list[int]) -> list[Upload]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return await self._form(request, taken)
        if kind not in RAW and not kind.startswith("image/"):
            raise Refused(415, f"{kind:.100} is not taken here; {HOW}")
        data = b"".join([chunk async for chunk in self._counted(request, taken)])
        if not data:
            raise Refused(400, f"the request has no body; {HOW}")
        return [Upload(_plain(request.query_params.get("name", "image")), data)]

    async def _form(self, request: Request, taken: list[int]) -> list[Upload]:
        limits = self.limits
        parser = _InMemory(
            request.headers,
            self._counted(request, taken),
            max_files=limits.files,
            max_fields=FIELDS,
            max_part_size=4096,
        )
        try:
            form: FormData = await parser.parse()
        except MultiPartException as error:
            if "files" in error.message:
                raise Refused(413, f"more than {limits.files} files in one request; send fewer at a time") from error
            raise Refused(400, f"the form cannot be read ({error.message.rstrip('.')}); {HOW}") from error
        try:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            if not files:
                raise Refused(400, f"the form holds no file; {HOW}")
            return [Upload(_plain(file.filename or "image"), await file.read()) for file in files]
        finally:
            await form.close()

    async def _counted(self, request: Request, taken: list[int]) -> AsyncGenerator[bytes, None]:
        """The body as it comes, until it is too much."""
        limits = self.limits
        promised = request.headers.get("content-length", "0")
        if promised.isdecimal() and int(promised[:20]) > limits.request_bytes:
            raise self._too_large()
        async for chunk in request.stream():
            taken[0] += len(chunk)
            self.held += len(chunk)
            if taken[0] > limits.request_bytes:
                raise self._too_large()
            if self.held > limits.uploads_megabytes * 1e6:
                raise Refused(429, "other uploads fill this server's memory; try again shortly", {"Retry-After": "2"})
            yield chunk

    def _too_large(self) -> Refused:
        return Refused(
            413, f"more than {self.limits.request_megabytes:g} MB in one request; send fewer images at a time"
        )


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 40  # what comes in is bounded by `Uploads`


def _plain(name: str) -> str:
    """The last part of a file's name, of any system, as it may be shown."""
    return printable(ntpath.basename(name))[:LONGEST_NAME] or "image"
