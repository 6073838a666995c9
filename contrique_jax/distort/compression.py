"""Compression: type 10 (docs/distortions.md)."""

from __future__ import annotations

import dm_pix as pix
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from contrique_jax.distort.colourspaces import mix

# full-range Y, Cb - 128, Cr - 128 and back, in libjpeg's 65536ths: sums of 8-bit values in them are exact in float32
JFIF_OF_RGB = np.array([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]]) / 2**16
RGB_OF_JFIF = np.array([[65536, 0, 91881], [65536, -22554, -46802], [65536, 116130, 0]]) / 2**16

# quantisation tables of ITU-T T.81, annex K
LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMA_TABLE = np.full((8, 8), 99)
CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# the orthonormal DCT-II of 8 numbers, and of an 8 x 8 block written as 64
DCT = np.cos(np.pi / 16 * np.outer(np.arange(8), 2 * np.arange(8) + 1)) / 2
DCT[0] /= np.sqrt(2)
BLOCK_DCT = np.kron(DCT, DCT)


def jpeg(key: PRNGKeyArray, image: Float[Array, "h w 3"], quality: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 10. Baseline JPEG with 4:2:0 chroma, written and read back as libjpeg does; `quality` in 1..100."""
    height, width, _ = image.shape
    half = np.array([0.5, 0.5 - 2**-16, 0.5 - 2**-16], np.float32)  # libjpeg rounds halves up in Y and down in Cb, Cr
    ycc = jnp.floor(mix(_round(255 * image), JFIF_OF_RGB) + half) + np.array([0, 128, 128], np.float32)
    luma = _coded(ycc[..., 0], _table(LUMA_TABLE, quality))
    chroma = [_upsampled(_coded(_halved(ycc[..., c]), _table(CHROMA_TABLE, quality))) for c in (1, 2)]
    ycc = jnp.stack([luma, *(plane[:height, :width] - 128 for plane in chroma)], axis=-1)
    return jnp.clip(_round(mix(ycc, RGB_OF_JFIF)), 0, 255) / 255


def _round(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.floor(x + 0.5)


def _table(base: np.ndarray, quality: Float[Array, ""]) -> Float[Array, "64"]:
    """libjpeg's scaling of a quantisation table."""
    scale = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)
    return jnp.clip(jnp.floor((base.reshape(64) * scale + 50) / 100), 1, 255)


def _coded(plane: Float[Array, "h w"], table: Float[Array, "64"]) -> Float[Array, "h w"]:
    """An 8-bit plane after its DCT coefficients are quantised."""
    height, width = plane.shape
    plane = jnp.pad(plane, ((0, -height % 8), (0, -width % 8)), mode="edge")
    blocks = pix.space_to_depth(plane[..., None] - 128, 8)
    coefficients = jnp.matmul(blocks, BLOCK_DCT.T.astype(np.float32), precision="highest") / table
    coefficients = jnp.sign(coefficients) * _round(jnp.abs(coefficients)) * table
    blocks = jnp.matmul(coefficients, BLOCK_DCT.astype(np.float32), precision="highest")
    return jnp.clip(_round(pix.depth_to_space(blocks, 8)[:height, :width, 0] + 128), 0, 255)


def _halved(plane: Float[Array, "h w"]) -> Float[Array, "h2 w2"]:
    """Means of 2 x 2 pixels, halves rounded down and up in turn; filled up to whole blocks across, as in libjpeg."""
    height, width = plane.shape
    blocks = (width + 15) // 16 * 8
    plane = jnp.pad(plane, ((0, height % 2), (0, 2 * blocks - width)), mode="edge")
    total = plane[0::2, 0::2] + plane[0::2, 1::2] + plane[1::2, 0::2] + plane[1::2, 1::2]
    bias = 1 + np.arange(blocks, dtype=np.float32) % 2
    return jnp.floor((total + bias) / 4)


def _upsampled(plane: Float[Array, "h w"]) -> Float[Array, "2h 2w"]:
    """libjpeg's "fancy" triangle filter."""
    above, below = (jnp.pad(plane, rows, mode="edge") for rows in (((1, 0), (0, 0)), ((0, 1), (0, 0))))
    tall = jnp.stack([3 * plane + above[:-1], 3 * plane + below[1:]], axis=1).reshape(-1, plane.shape[1])
    before, after = (jnp.pad(tall, columns, mode="edge") for columns in (((0, 0), (1, 0)), ((0, 0), (0, 1))))
    wide = jnp.stack([3 * tall + before[:, :-1] + 8, 3 * tall + after[:, 1:] + 7], axis=2)
    return jnp.floor(wide.reshape(len(tall), -1) / 16)
