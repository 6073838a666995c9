"""The five crops in which ARNIQA's test looks at an image: its centre and its corners."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

CROPS = 5
Image = TypeVar("Image", Array, np.ndarray)


def places(height: int, width: int, side: int) -> list[tuple[int, int]]:
    """Row and column of each crop's corner: centre, top left, bottom left, top right, bottom right; below 0 where the image
    is smaller than a crop."""
    down, right = height - side, width - side
    return [(height // 2 - side // 2, width // 2 - side // 2), (0, 0), (down, 0), (0, right), (down, right)]


def five_crops(image: Shaped[Image, "h w c"], side: int) -> Shaped[Image, "5 s s c"]:
    """Copies of them; black beyond the image. Of a NumPy array or, also inside `jit`, of JAX's."""
    xp: Any = jnp if isinstance(image, jax.Array) else np
    height, width = image.shape[:2]
    cut = []
    for row, column in places(height, width, side):
        top, bottom, left, right = max(row, 0), min(row + side, height), max(column, 0), min(column + side, width)
        around = ((top - row, row + side - bottom), (left - column, column + side - right), (0, 0))
        cut.append(xp.pad(image[top:bottom, left:right], around))
    return xp.stack(cut)
