"""ICC profiles: pixels as their numbers would be in sRGB, which is what networks and opinions have seen."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms

NEAR_SRGB = 2  # of 255: a profile that moves no colour further is sRGB in another writing
_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK", "LAB ": "LAB"}  # a profile's colour space -> Pillow's mode


def to_srgb(image: Image.Image) -> Image.Image:
    """The image with its numbers converted from its embedded profile to sRGB, mode RGB if anything was to be done.

    Relative colorimetric with black-point compensation. What is sRGB already, has no profile, or one that is damaged or of
    another colour space than the pixels comes back as it is. Transparency is the caller's.
    """
    profile = image.info.get("icc_profile")
    if not profile or not isinstance(profile, bytes):
        return image
    transform, mode = _transform(profile)
    if transform is None:
        return image
    if mode == "RGB" and image.mode in ("P", "PA", "RGBA", "RGBX", "YCbCr"):
        image = image.convert("RGB")
    elif mode == "L" and image.mode in ("LA", "1"):
        image = image.convert("L")
    if image.mode != mode:
        return image
    return transform.apply(image)


@functools.lru_cache(maxsize=64)
def _transform(profile: bytes) -> tuple[ImageCms.ImageCmsTransform | None, str]:
    """What turns numbers of that profile into sRGB, None if nothing is to be done, and the mode of what it takes."""
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES.get(given.profile.xcolor_space, "")
        if not mode:
            return None, ""
        made = ImageCms.buildTransform(
            given,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # damaged, or one that cannot be read from
        return None, ""
    if mode in ("RGB", "L"):
        steps = np.arange(0, 256, 15, dtype=np.uint8)
        colours = steps[None] if mode == "L" else np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
        moved = np.asarray(made.apply(Image.fromarray(colours))).astype(int)
        if np.abs(moved - np.atleast_3d(colours.astype(int))).max() <= NEAR_SRGB:
            return None, mode
    return made, mode
