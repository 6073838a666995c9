"""A server on localhost that speaks the part of Google Cloud Storage's JSON protocol that gcsfs, TensorStore and
google-cloud-storage use, with the buckets in memory: names and generations, conditions, ranges, pages of listings.

The emulators on PyPI leave generations and conditions out, without which TensorStore does not write.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

API = re.compile(r"(?:/(upload|download))?/storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?/?")
PAGE = 7  # objects in a page of a listing, so that some have several


class Server(ThreadingHTTPServer):
    """`buckets`: name -> object name -> (bytes, generation). `private` ones know no caller; writes of objects whose names
    `refused` finds are denied."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *buckets: str, private: tuple[str, ...] = ()):
        super().__init__(("127.0.0.1", 0), Handler)
        self.buckets: dict[str, dict[str, tuple[bytes, int]]] = {name: {} for name in buckets + private}
        self.private, self.refused = private, re.compile(r"(?!)")
        self.lock, self.generation, self.uploads = threading.Lock(), 1000, dict[str, tuple[str, bytes]]()
        self.url = f"http://127.0.0.1:{self.server_port}"
        # where the three libraries look for it, and no control API beside it
        self.environment = {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *details: Any) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: clients hang up when they have seen enough."""

    def put(self, bucket: str, name: str, data: bytes) -> None:
        with self.lock:
            self.generation += 1
            self.buckets[bucket][name] = data, self.generation

    def get(self, bucket: str, name: str) -> bytes:
        return self.buckets[bucket][name][0]

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        return sorted(name for name in self.buckets[bucket] if name.startswith(prefix))


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version, wbufsize = "HTTP/1.1", -1  # an answer in one packet: two wait for each other for 40 ms

    def log_message(self, *details: Any) -> None:
        pass

    def answer(self, code: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def fail(self, code: int, message: str) -> None:
        self.answer(code, {"error": {"code": code, "message": message}}, Content_Type="application/json")

    def serve(self) -> None:
        address = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(address.query).items()}
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = API.fullmatch(address.path)
        if not found:
            return self.fail(501, "unknown request")
        bucket, name = unquote(found[2]), unquote(found[3] or "")
        if bucket in self.server.private:
            return self.fail(401, f"Anonymous caller does not have storage.objects.list access to {bucket}.")
        if bucket not in self.server.buckets:
            return self.fail(404, "The specified bucket does not exist.")
        with self.server.lock:
            objects = self.server.buckets[bucket]
            if self.command in ("POST", "PUT"):
                return self.upload(bucket, objects)
            if not name:
                listing = address.path.rstrip("/").endswith("/o")
                return self.listing(bucket, objects) if listing else self.answer(200, {"name": bucket})
            if name not in objects:
                return self.fail(404, f"No such object: {bucket}/{name}")
            if self.command == "DELETE":
                del objects[name]
                return self.answer(204)
            data, generation = objects[name]
            if self.query.get("ifGenerationNotMatch") == str(generation):
                return self.answer(304)
            if self.query.get("ifGenerationMatch", str(generation)) != str(generation):
                return self.fail(412, "conditionNotMet")
            if self.query.get("alt") != "media":
                return self.answer(200, self.resource(bucket, name, data, generation), Content_Type="application/json")
            return self.content(data, generation)

    do_GET = do_POST = do_PUT = do_DELETE = serve

    def resource(self, bucket: str, name: str, data: bytes, generation: int) -> dict[str, str]:
        return {
            "kind": "storage#object", "name": name, "bucket": bucket, "size": str(len(data)),
            "generation": str(generation), "metageneration": "1", "contentType": "application/octet-stream",
            "updated": "2025-01-01T00:00:00.000Z", "timeCreated": "2025-01-01T00:00:00.000Z",
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
            "crc32c": base64.b64encode(google_crc32c.Checksum(data).digest()).decode(),
        }  # fmt: skip

    def content(self, data: bytes, generation: int) -> None:
        headers = {"x_goog_generation": str(generation), "Content_Type": "application/octet-stream"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return self.answer(200, data, **headers)
        first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        if first >= len(data):
            return self.fail(416, "range not satisfiable")
        return self.answer(206, data[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(data)}", **headers)

    def listing(self, bucket: str, objects: dict[str, tuple[bytes, int]]) -> None:
        """Folders stand for what lies behind the delimiter; a page token is the name before the page."""
        prefix, delimiter, after = (self.query.get(key, "") for key in ("prefix", "delimiter", "pageToken"))
        entries = {}  # name -> whether it is a folder
        for name in sorted(objects):
            if name.startswith(prefix) and name >= self.query.get("startOffset", ""):
                head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
                entries.setdefault(prefix + head + cut if cut else name, bool(cut))
        rest = [name for name in entries if name > after]
        page = rest[: min(PAGE, int(self.query.get("maxResults", PAGE)))]
        answer: dict[str, Any] = {
            "kind": "storage#objects",
            "items": [self.resource(bucket, name, *objects[name]) for name in page if not entries[name]],
            "prefixes": [name for name in page if entries[name]],
        }
        if len(rest) > len(page):
            answer["nextPageToken"] = page[-1]
        self.answer(200, answer, Content_Type="application/json")

    def upload(self, bucket: str, objects: dict[str, tuple[bytes, int]]) -> None:
        """In one piece (media, multipart) or in several (resumable)."""
        kind, data, name = self.query.get("uploadType"), self.body, self.query.get("name", "")
        if kind == "multipart":
            mark = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()  # type: ignore[index]
            about, data = (re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1] for part in data.split(b"--" + mark)[1:3])
            name, data = json.loads(about)["name"], re.sub(rb"\r?\n\Z", b"", data)
        elif kind == "resumable" and "upload_id" not in self.query:
            number = str(len(self.server.uploads))
            self.server.uploads[number] = name or json.loads(data)["name"], b""
            place = f"{self.server.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={number}"
            return self.answer(200, Location=place)
        elif kind == "resumable":
            name, before = self.server.uploads[self.query["upload_id"]]
            data = before + data
            if self.headers.get("Content-Range", "").endswith("/*"):  # more is to come
                self.server.uploads[self.query["upload_id"]] = name, data
                return self.answer(308, Range=f"bytes=0-{len(data) - 1}")
        if self.server.refused.search(name):
            return self.fail(403, f"the caller does not have storage.objects.create access to {bucket}/{name}")
        before_that = objects[name][1] if name in objects else 0
        if self.query.get("ifGenerationMatch", str(before_that)) != str(before_that):
            return self.fail(412, "conditionNotMet")
        self.server.generation += 1
        objects[name] = data, self.server.generation
        self.answer(200, self.resource(bucket, name, *objects[name]), Content_Type="application/json")
