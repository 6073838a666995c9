"""sRGB transfer, CIE Lab (D65) and YCbCr (BT.601) on float images (docs/distortions.md)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

XYZ_OF_RGB = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE = np.array([0.95047, 1.0, 1.08883])  # X, Y, Z of the D65 white point
LAB_OF_F = np.array(
    [[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]]
)  # of f(X), f(Y), f(Z), less 16 in L
YCBCR_OF_RGB = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
YCBCR_OF_BLACK = np.array([16.0, 128.0, 128.0]) / 255


def mix(image: Float[Array, "h w 3"], matrix: np.ndarray) -> Float[Array, "h w 3"]:
    """Each pixel's vector times `matrix` [3, 3], in float32."""
    # three broadcast products vectorise on a CPU, a product with a 3 x 3 matrix does not; the barrier is against
    # computing what comes before three times
    image, columns = jax.lax.optimization_barrier(image), np.asarray(matrix, np.float32).T
    return image[..., 0:1] * columns[0] + image[..., 1:2] * columns[1] + image[..., 2:3] * columns[2]


def _power(x: Float[Array, "..."], exponent: float) -> Float[Array, "..."]:
    """x ** exponent for x > 0: exp and log vectorise on a CPU, pow and cbrt do not."""
    return jnp.exp(exponent * jnp.log(x))


def linear_from_srgb(image: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
    """Display values in [0, 1] -> linear light in [0, 1]."""
    return jnp.where(image <= 0.04045, image / 12.92, _power((jnp.maximum(image, 0.04045) + 0.055) / 1.055, 2.4))


def srgb_from_linear(light: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
    """Linear light -> display values; what is outside [0, 1] stays outside."""
    return jnp.where(light <= 0.0031308, 12.92 * light, 1.055 * _power(jnp.maximum(light, 0.0031308), 1 / 2.4) - 0.055)


def lab_from_rgb(image: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
    """sRGB in [0, 1] -> L in [0, 100], a and b about [-110, 110]."""
    t = mix(linear_from_srgb(image), XYZ_OF_RGB / WHITE[:, None])
    f = jnp.where(t > (6 / 29) ** 3, _power(jnp.maximum(t, (6 / 29) ** 3), 1 / 3), (841 / 108) * t + 4 / 29)
    return mix(f, LAB_OF_F) - np.array([16, 0, 0], np.float32)


def with_lightness(lab: Float[Array, "h w 3"], lightness: Float[Array, "h w 1"]) -> Float[Array, "h w 3"]:
    """`lab` with another L."""
    return jnp.concatenate([lightness, lab[..., 1:]], axis=-1)


def rgb_from_lab(lab: Float[Array, "h w 3"], *, clamp_fz: bool = True) -> Float[Array, "h w 3"]:
    """Lab -> sRGB, clipped to [0, 1].

    Colours that no light has (f(Z) < 0) go to Z = 0 with `clamp_fz`, as scikit-image does, and else keep a negative Z.
    """
    f = mix(lab + np.array([16, 0, 0], np.float32), np.linalg.inv(LAB_OF_F))
    if clamp_fz:
        f = jnp.maximum(f, np.array([-np.inf, -np.inf, 0], np.float32))
    t = jnp.where(f > 6 / 29, f**3, (108 / 841) * (f - 4 / 29))
    return jnp.clip(srgb_from_linear(mix(t, np.linalg.inv(XYZ_OF_RGB) * WHITE)), 0, 1)


def ycbcr_from_rgb(image: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
    """RGB in [0, 1] -> studio-range Y in [16, 235] / 255, Cb and Cr in [16, 240] / 255."""
    return mix(image, YCBCR_OF_RGB) + YCBCR_OF_BLACK.astype(np.float32)


def rgb_from_ycbcr(ycbcr: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
    """Studio-range YCbCr / 255 -> RGB, clipped to [0, 1]."""
    return jnp.clip(mix(ycbcr - YCBCR_OF_BLACK.astype(np.float32), np.linalg.inv(YCBCR_OF_RGB)), 0, 1)
