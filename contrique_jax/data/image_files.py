"""The image files that paths name; apart from the sources, so that `score` and `features` start quickly."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from os.path import splitext
from pathlib import Path

from contrique_jax.data.decode import EXTENSIONS
from contrique_jax.errors import UserError


def list_images(paths: Sequence[str]) -> list[Path]:
    """The image files that a user means by `paths`: files, folders (recursive) and globs, in order, each file once.

    A file that is named is taken whatever its extension. Raises UserError if a path matches no image.
    """
    found: dict[str, Path] = {}
    for path in paths:
        exact = os.path.lexists(os.path.expanduser(path))
        matches = [path] if exact else sorted(glob.glob(os.path.expanduser(path), recursive=True))
        images = [image for match in matches for image in _images_at(Path(match).expanduser(), named=exact)]
        if not images:
            why = "holds no images" if exact else "matches no image; check the path"
            raise UserError(f"{path}: {why} (known extensions: {' '.join(sorted(EXTENSIONS))}).")
        for image in images:
            found.setdefault(os.path.abspath(image), image)
    return list(found.values())


def _images_at(path: Path, named: bool) -> list[Path]:
    if path.is_dir():
        return [path / name for name in sorted(walk(path, field=str(path)))]
    return [path] if named or path.suffix.lower() in EXTENSIONS else []


def walk(folder: Path, field: str) -> Iterator[str]:
    """Relative names, with `/`, of the images under a folder. Links to folders are followed, each folder once.

    Raises UserError that names `field` if a folder cannot be listed.
    """

    def stop(error: OSError) -> None:
        raise UserError(f"{field}: the folder {error.filename} cannot be listed ({error.strerror}).") from error

    seen: set[tuple[int, int]] = set()
    root = str(folder)
    for place, folders, files in os.walk(root, followlinks=True, onerror=stop):
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


def is_image(name: str) -> bool:
    """Whether a relative name, with `/`, is an image's by its extension; what is hidden is none."""
    return not any(part.startswith(".") for part in name.split("/")) and splitext(name)[1].lower() in EXTENSIONS
