"""Videos and folders of numbered frames, frame by frame: upright RGB, in constant memory whatever their length.

Videos are read by PyAV (the extra `video`). Sound is passed by; what transmission has lost is shown as the decoder shows it.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from contrique_jax.data.decode import EXTENSIONS as IMAGES
from contrique_jax.data.decode import read
from contrique_jax.errors import BrokenImage, UserError
from contrique_jax.io.csv_rows import table_paths
from contrique_jax.io.progress import chunks
from contrique_jax.io.regular import open_regular

EXTENSIONS = frozenset(
    [".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv"]
)
# FFmpeg looks at a file's content, not its name: these do not lead to other files or to the network, as playlists do
_FORMATS = "mov,matroska,avi,mpeg,mpegts,asf,flv,ogg,h264,hevc,mpegvideo,m4v"
FOLDER_RATE = 25.0  # frames a second of a folder of frames, whose files tell none
WHOLE = 0.9  # of its length must be there, or a clip counts as cut off
_NUMBERED = re.compile(r"(.*?)(\d+)")

RGB = UInt8[np.ndarray, "h w 3"]


class Frame(NamedTuple):
    image: UInt8[np.ndarray, "h w 3"]
    time: float  # seconds since the first


def is_clip(path: Path) -> bool:
    """A video by its extension, or a folder (of numbered frames)."""
    return path.suffix.lower() in EXTENSIONS or os.path.isdir(path)


def is_frames(path: Path) -> bool:
    """A folder that holds nothing but numbered frames, as far as images go."""
    try:
        return os.path.isdir(path) and bool(numbered(path))
    except BrokenImage:
        return False


def frames(path: Path, *, every: float = 0.0, max_pixels: int = 200_000_000) -> Iterator[Frame]:
    """The frames of a video file or of a folder of numbered images, in the order in which they are shown; with `every` only
    those that many seconds apart, the first among them.

    Times are the file's own, so that a variable rate is one. Raises BrokenImage, some of it after the frames that there are:
    if there are no pictures, if less than nine tenths of the length that the file promises can be read, if frames have more
    than `max_pixels`, and without PyAV.
    """
    due = 0.0
    for frame, time in _of_folder(path, max_pixels) if os.path.isdir(path) else _of_file(path, max_pixels):
        if time >= due - 1e-6:
            yield Frame(frame(), time)
            due = every * (math.floor(time / every + 1e-6) + 1) if every else due


def blocks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Runs of `size` items from the first, the last one shorter if they do not come out even."""
    return chunks(items, size, 1, lambda item: 0)


def numbered(folder: Path) -> list[Path]:
    """The images of a folder whose names differ by a number at their end, by that number (2 before 10). Raises BrokenImage
    if there are none, or others beside them."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError as error:
        raise BrokenImage(str(folder), f"the folder cannot be listed ({error.strerror})") from error
    images = [name for name in names if os.path.splitext(name)[1].lower() in IMAGES]
    if not images:
        raise BrokenImage(
            str(folder), "the folder holds no frames; a clip is a video file or a folder of numbered images"
        )
    parts = {name: _NUMBERED.fullmatch(os.path.splitext(name)[0]) for name in images}
    others = sorted(name for name, part in parts.items() if part is None)
    if others or len({part[1] for part in parts.values() if part}) > 1:
        odd = others[0] if others else sorted(images)[-1]
        raise BrokenImage(
            str(folder),
            f"{odd} is no frame of a sequence; name all frames alike with a number at the end, as frame_0001.png",
        )
    return [folder / name for _, name in sorted((int(part[2]), name) for name, part in parts.items() if part)]


class ClipSource:
    """`clips:PLACE`: videos and folders of numbered frames; their frames are read one by one by whoever wants them."""

    classes = None

    def __init__(self, name: str, folder: Path, paths: list[Path], max_pixels: int):
        self.name, self.paths, self._folder, self._max_pixels = name, paths, folder, max_pixels

    def __len__(self) -> int:
        return len(self.paths)

    def item_name(self, i: int) -> str:
        return os.path.relpath(self.paths[i], self._folder)

    def frames(self, i: int) -> Iterator[Frame]:
        return frames(self.paths[i], max_pixels=self._max_pixels)

    def load(self, i: int) -> UInt8[np.ndarray, "1 h w 3"]:
        """The first frame. Raises BrokenImage if there is none."""
        for frame in self.frames(i):
            return frame.image[None]
        raise BrokenImage(str(self.paths[i]), "no frame of it can be read")


def open_clips(spec: str, field: str, max_pixels: int) -> ClipSource:
    """`clips:FOLDER`: the videos under it, and each of its subfolders that holds numbered frames; `clips:F.csv`: those of the
    column `path`. Raises UserError if there is none."""
    place = Path(spec.partition(":")[2]).expanduser()
    if place.suffix.lower() == ".csv":
        return ClipSource(spec, place.parent, table_paths(place, field), max_pixels)
    if not place.is_dir():
        raise UserError(f"{field}: {spec!r}: there is no such folder; give clips:FOLDER or clips:F.csv.")
    found = []
    for here, folders, files in os.walk(place, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        seen = sorted(name for name in files if not name.startswith("."))
        found += [Path(here, name) for name in seen if os.path.splitext(name)[1].lower() in EXTENSIONS]
        if any(os.path.splitext(name)[1].lower() in IMAGES for name in seen):
            found.append(Path(here))
    if not found:
        raise UserError(
            f"{field}: {place} holds no clips (videos: {' '.join(sorted(EXTENSIONS))}; folders of numbered frames)."
        )
    return ClipSource(spec, place, sorted(found), max_pixels)


def content_digest(path: Path) -> str:
    """32 hexadecimal digits that name a clip's bytes: of the file, or of a folder's frames. Raises BrokenImage, OSError."""
    digest = hashlib.sha256()
    for file in numbered(path) if os.path.isdir(path) else [path]:
        with open_regular(file) as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]


def has_pyav() -> bool:
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


def _of_folder(folder: Path, max_pixels: int) -> Iterator[tuple[Callable[[], RGB], float]]:
    for number, path in enumerate(numbered(folder)):
        yield functools.partial(read, path, max_pixels), number / FOLDER_RATE


def _of_file(path: Path, max_pixels: int) -> Iterator[tuple[Callable[[], RGB], float]]:
    av = _av(path)
    try:
        with open_regular(path) as stream:
            if not stream.peek(1):
                raise BrokenImage(str(path), "the file is empty")
            try:
                container = av.open(stream, container_options={"format_whitelist": _FORMATS}, **_lenient(av))
            except Exception as error:  # damaged files raise nearly anything from within FFmpeg
                why = getattr(error, "strerror", None) or error
                raise BrokenImage(str(path), f"not a video that can be read, damaged or cut off ({why})") from error
            with container:
                yield from _shown(av, path, container, max_pixels)
    except FileNotFoundError as error:
        raise BrokenImage(str(path), "the file does not exist") from error
    except BrokenImage:
        raise
    except OSError as error:
        raise BrokenImage(str(path), f"the file cannot be read ({error.strerror or error})") from error


def _shown(av: ModuleType, path: Path, container: Any, max_pixels: int) -> Iterator[tuple[Callable[[], RGB], float]]:
    if not container.streams.video:
        raise BrokenImage(str(path), "it holds no pictures" + (", only sound" if container.streams.audio else ""))
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise BrokenImage(str(path), "its pictures are in a codec that FFmpeg does not know, or damaged")
    if stream.width * stream.height > max_pixels:
        raise BrokenImage(str(path), f"{stream.width} x {stream.height} pixels is more than the limit of {max_pixels}")
    stream.thread_type = "AUTO"
    step = float(1 / (stream.average_rate or Fraction(25)))
    last = _Ends()
    first, shown = None, -step
    for packet in _packets(av, container):
        last.see(packet, packet.stream is stream)
        if packet.stream is not stream:
            continue
        try:
            found = packet.decode()
        except (av.error.FFmpegError, ValueError):
            continue  # lost on the way: the decoder goes on with the next
        for frame in found:
            if frame.width * frame.height > max_pixels:
                raise BrokenImage(str(path), f"{frame.width} x {frame.height} pixels is more than the limit")
            time = shown + step if frame.time is None else frame.time
            first = time if first is None else first
            shown = time - first
            yield functools.partial(_upright, path, frame), shown
    if first is None:
        raise BrokenImage(str(path), "no frame of it can be read")
    _check_whole(path, container, last, shown + step)


class _Ends:
    """When the packets begin and end that a file holds, in seconds: of the pictures, and of all."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.pictures = self.all = 0.0

    def see(self, packet: Any, picture: bool) -> None:
        if packet.pts is None or packet.time_base is None:
            return
        at = float(packet.pts * packet.time_base)
        self.began = at if self.began is None else min(self.began, at)
        end = at - self.began + float((packet.duration or 0) * packet.time_base)
        self.all = max(self.all, end)
        if picture:
            self.pictures = max(self.pictures, end)


def _check_whole(path: Path, container: Any, last: _Ends, shown: float) -> None:
    """Raises BrokenImage if the file ends before the end that its header promises, or its pictures before their last."""
    promised = container.duration / 1e6 if container.duration else 0.0
    for found, whole in ((last.all, promised), (shown, last.pictures)):
        if found < WHOLE * whole:
            raise BrokenImage(
                str(path),
                f"damaged or cut off: only {min(found, shown):.1f} of {whole:.1f} s can be read; copy it again",
            )


def _packets(av: ModuleType, container: Any) -> Iterator[Any]:
    """All of them up to the first that cannot be had, then what empties the decoder."""
    wanted = [stream for stream in container.streams if stream.type in ("video", "audio")]
    try:
        yield from container.demux(wanted)
    except (av.error.FFmpegError, ValueError):
        stream = container.streams.video[0]
        packet = av.Packet()
        packet.stream = stream
        yield packet


def _upright(path: Path, frame: Any) -> UInt8[np.ndarray, "h w 3"]:
    """RGB, turned as a phone's file asks. Raises BrokenImage if FFmpeg cannot convert it."""
    try:
        image = frame.to_ndarray(format="rgb24")
    except (OSError, ValueError) as error:  # which FFmpeg's errors are
        raise BrokenImage(str(path), f"a frame of it cannot be converted to RGB ({error})") from error
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _lenient(av: Any) -> dict[str, str]:
    """Titles that are no UTF-8 are no fault; PyAV 19 has no such option."""
    return {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}


def _av(path: Path) -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise BrokenImage(
            str(path), 'a video, which needs the package av: pip install "contrique-jax[video]"'
        ) from error
    return av
