"""Changes of colour and sharpness between views of one photograph (SimCLR's and MoCo-v2's, by torchvision's rules)."""

from __future__ import annotations

from typing import NamedTuple

import dm_pix as pix
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from contrique_jax.distort.filters import gaussian_taps, separable

LARGEST_SIGMA = 2.0  # of the blur [pixels]

Image = Float[Array, "h w 3"]


class Jitter(NamedTuple):
    """The choices of one view."""

    colours: Bool[Array, ""]  # whether brightness, contrast, saturation and hue change
    order: Int[Array, "4"]  # of these four
    amounts: Float[Array, "4"]  # factors of the first three, turns of the hue
    grey: Bool[Array, ""]
    sigma: Float[Array, ""]  # of the blur [pixels]; 0: none
    flip: Bool[Array, ""]  # left to right


def draw_jitter(key: PRNGKeyArray) -> Jitter:
    """MoCo-v2's: colours with a chance of .8, by up to .4 of each and .1 of a turn; grey .2; a blur .5; flip .5."""
    chance, order, factor, hue, sigma = jax.random.split(key, 5)
    of_colours, of_grey, of_blur, of_flip = jax.random.uniform(chance, (4,))
    factors = jax.random.uniform(factor, (3,), minval=0.6, maxval=1.4)
    turn = jax.random.uniform(hue, (1,), minval=-0.1, maxval=0.1)
    width = jax.random.uniform(sigma, minval=0.1, maxval=LARGEST_SIGMA)
    return Jitter(
        of_colours < 0.8, jax.random.permutation(order, 4).astype(jnp.int32), jnp.concatenate([factors, turn]), of_grey < 0.2,
        jnp.where(of_blur < 0.5, width, 0.0), of_flip < 0.5,
    )  # fmt: skip


def jittered(image: Image, draw: Jitter) -> Image:
    """A view in [0, 1] with its colours changed, then grey, blurred, flipped."""

    def change(number: Array, x: Image) -> Image:
        which = draw.order[number]
        return jax.lax.switch(which, [_brightness, _contrast, _saturation, _hue], x, draw.amounts[which])

    x = jnp.where(draw.colours, jax.lax.fori_loop(0, 4, change, image), image)
    x = jnp.where(draw.grey, jnp.broadcast_to(_luma(x), x.shape), x)
    taps = gaussian_taps(jnp.maximum(draw.sigma, 0.1), 2 * int(LARGEST_SIGMA))
    x = jnp.where(draw.sigma > 0, separable(x, taps), x)
    return jnp.where(draw.flip, x[:, ::-1], x)


def _luma(x: Image) -> Float[Array, "h w 1"]:
    return (0.2989 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2])[..., None]


def _mixed(x: Image, other: Array, factor: Float[Array, ""]) -> Image:
    return jnp.clip(factor * x + (1 - factor) * other, 0, 1)


def _brightness(x: Image, factor: Float[Array, ""]) -> Image:
    return _mixed(x, jnp.zeros_like(x), factor)


def _contrast(x: Image, factor: Float[Array, ""]) -> Image:
    return _mixed(x, jnp.mean(_luma(x)), factor)


def _saturation(x: Image, factor: Float[Array, ""]) -> Image:
    return _mixed(x, _luma(x), factor)


def _hue(x: Image, turn: Float[Array, ""]) -> Image:
    return jnp.clip(pix.adjust_hue(x, turn), 0, 1)
