"""What one client, and all of them together, may ask of the server."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from contrique_jax.errors import UserError


@dataclass(frozen=True)
class Limits:
    """Everything that bounds memory and time; all above 0."""

    files: int = 50  # in one request
    file_megabytes: float = 32
    request_megabytes: float = 256
    uploads_megabytes: float = 512  # of all requests that are not answered yet
    image_megapixels: float = 64  # as its header says, before anything is decoded
    body_seconds: float = 60  # for a request to arrive
    decode_seconds: float = 20  # for one image; then its process is ended
    answer_seconds: float = 600  # from the last byte to the answer
    queue: int = 128  # images that wait or are at work
    batch: int = 4  # images that go through the network together
    wait_milliseconds: float = 5  # how long the first of a batch waits for others
    connections: int = 512
    drain_seconds: float = 25  # after SIGTERM, for what was accepted

    def __post_init__(self) -> None:
        """Raises UserError for a value that makes no sense."""
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "wait_milliseconds" else 1 if field.type == "int" else 1e-6
            if not (math.isfinite(value) and value >= least):
                flag = "--" + field.name.replace("_", "-")
                raise UserError(f"{flag} {value:g}: must be finite and {'0 or more' if least == 0 else 'above 0'}.")
        if self.files > self.queue:
            raise UserError(
                f"--files {self.files}: the queue holds {self.queue} images; raise --queue or lower --files."
            )

    @property
    def file_bytes(self) -> int:
        return int(self.file_megabytes * 1e6)

    @property
    def request_bytes(self) -> int:
        return int(self.request_megabytes * 1e6)

    @property
    def image_pixels(self) -> int:
        return int(self.image_megapixels * 1e6)


class Refused(Exception):
    """A request that is answered with an error's status and one sentence."""

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None):
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers or {}
