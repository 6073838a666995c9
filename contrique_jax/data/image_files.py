"""The image files that paths name; apart from the sources, so that `score` and `features` start quickly."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os.path import splitext
from pathlib import Path

from contrique_jax.data.clips import EXTENSIONS as VIDEOS
from contrique_jax.data.clips import has_pyav
from contrique_jax.data.decode import EXTENSIONS
from contrique_jax.data.unread_formats import PHOTOGRAPHS
from contrique_jax.errors import UserError, printable
from contrique_jax.io.buckets import is_address

NAMED = 5  # of what was left out; the rest is counted


@dataclass
class LeftOut:
    """What a listing passes by that a user may miss."""

    photographs: list[str] = field(default_factory=list)  # in formats that are not read, by their extensions
    folders: list[tuple[str, str]] = field(default_factory=list)  # that cannot be listed, and why
    videos: list[str] = field(default_factory=list)  # where they are wanted, without what reads them

    def sentences(self) -> list[str]:
        """What to say at the end, nothing if nothing was left out."""
        said = []
        if self.photographs:
            found = _count(len(self.photographs), "photograph")
            said.append(
                f"{found} left out, in formats that are not read: {_some(self.photographs)}; convert to JPEG, PNG or TIFF"
            )
        if self.videos:
            found = _count(len(self.videos), "video")
            said.append(f'{found} left out, which the package av reads: pip install "contrique-jax[video]"')
        if self.folders:
            names = [f"{folder} ({why})" for folder, why in self.folders]
            said.append(f"{_count(len(names), 'folder')} left out that cannot be listed: {_some(names)}")
        return said

    def say(self) -> None:
        for sentence in self.sentences():
            print(printable(f"warning: {sentence}"), file=sys.stderr)


@dataclass
class Listing:
    """What a user means by paths."""

    files: list[Path]
    named: set[Path]  # of these, those named as files and not found in folders or by globs
    left_out: LeftOut


def find_images(paths: Sequence[str], left_out: LeftOut | None = None, *, videos: bool = False) -> Listing:
    """The image files that a user means by `paths`: files, folders (recursive) and globs, in order, each file once; with
    `videos` these too.

    What folders hold beside them goes to `left_out`, default a new one. A file that is named is taken whatever its
    extension. Raises UserError if a path matches no image or is a folder that cannot be listed.
    """
    found: dict[str, Path] = {}
    named, left_out = set(), LeftOut() if left_out is None else left_out
    for path in paths:
        if is_address(path):
            raise UserError(
                f"{path}: files of this machine are read here; copy them, or score gs:// with `contrique-jax bulk`."
            )
        exact = _is_there(os.path.expanduser(path))
        matches = [path] if exact else sorted(glob.glob(os.path.expanduser(path), recursive=True))
        images = [image for match in matches for image in _images_at(Path(match).expanduser(), exact, left_out, videos)]
        if not images:
            why = "holds no images" if exact else "matches no image; check the path"
            passed_by = "".join(f"; {sentence}" for sentence in left_out.sentences())
            known = " ".join(sorted(EXTENSIONS)) + (f"; videos: {' '.join(sorted(VIDEOS))}" if videos else "")
            raise UserError(f"{path or 'an empty path'}: {why} (known extensions: {known}){passed_by}.")
        for image in images:
            first = found.setdefault(os.path.abspath(image), image)
            if exact and not os.path.isdir(image) and images == [Path(path).expanduser()]:
                named.add(first)
    for names in (left_out.photographs, left_out.videos):
        names[:] = dict.fromkeys(names)  # of paths that lie within each other
    return Listing(list(found.values()), named, left_out)


def list_images(paths: Sequence[str]) -> list[Path]:
    """The files of `find_images`."""
    return find_images(paths).files


def _images_at(path: Path, named: bool, left_out: LeftOut, videos: bool) -> list[Path]:
    if os.path.isdir(path):
        return [path / name for name in sorted(walk(path, str(path), left_out, videos=videos))]
    extension = path.suffix.lower()
    if named or extension in EXTENSIONS:
        return [path]
    if extension in PHOTOGRAPHS:
        left_out.photographs.append(str(path))
    return [path] if videos and extension in VIDEOS and _readable(str(path), left_out) else []


def _readable(video: str, left_out: LeftOut) -> bool:
    if not has_pyav():
        left_out.videos.append(video)
    return not left_out.videos


def _is_there(path: str) -> bool:
    """Also where the folder above may not be looked into: reading the file then says so."""
    try:
        os.lstat(path)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def walk(folder: Path, field: str, left_out: LeftOut, *, videos: bool = False) -> Iterator[str]:
    """Relative names, with `/`, of the images under a folder, and with `videos` of these. Links to folders are followed, each
    folder once.

    What else looks like a photograph and subfolders that cannot be listed go to `left_out`. Raises UserError that names
    `field` if the folder itself cannot be listed.
    """
    root = str(folder)

    def passed_by(error: OSError) -> None:
        if error.filename == root:
            raise UserError(f"{field}: the folder {root} cannot be listed ({error.strerror}).") from error
        left_out.folders.append((str(error.filename), str(error.strerror)))

    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(root, followlinks=True, onerror=passed_by):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # sorted, so that it is the same of two links to one folder that is followed on every machine
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = os.path.relpath(place, root).replace(os.sep, "/")
        prefix = "" if relative == "." else relative + "/"
        for name in files:
            if is_image(name):
                yield prefix + name
            elif looks_like_photograph(name):
                left_out.photographs.append(f"{place}/{name}")
            elif videos and is_video(name) and _readable(f"{place}/{name}", left_out):
                yield prefix + name


def is_image(name: str) -> bool:
    """Whether a relative name, with `/`, is an image's by its extension; what is hidden is none."""
    return not _hidden(name) and splitext(name)[1].lower() in EXTENSIONS


def is_video(name: str) -> bool:
    """The same of a video."""
    return not _hidden(name) and splitext(name)[1].lower() in VIDEOS


def looks_like_photograph(name: str) -> bool:
    """The same of an image in a format that is not read here: a camera's raw file, JPEG XL, Photoshop."""
    return not _hidden(name) and splitext(name)[1].lower() in PHOTOGRAPHS


def _hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _count(number: int, what: str) -> str:
    return f"1 {what} was" if number == 1 else f"{number} {what}s were"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
