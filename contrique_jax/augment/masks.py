"""Noise on what a student sees: quarter turns and black squares; of one image each, in JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt32

Image = Float[Array, "s s 3"]
GRID_PERIODS = (24, 48)  # of a grid mask's squares, least and one more than most [pixels]
GRID_SHARE = 0.3  # side of its squares, as a share of the period


def quarter_turns(key: Array, image: Image) -> Image:
    """Turned by 0, 90, 180 or 270 degrees."""
    turns = [lambda x, k=k: jnp.rot90(x, k) for k in range(4)]
    return jax.lax.switch(jax.random.randint(key, (), 0, 4), turns, image)


def cutout(key: Array, side: int, share: float) -> Bool[Array, "s s"]:
    """True inside one square, of `share` of the side, anywhere inside the image."""
    size = round(share * side)
    top, left = jax.random.randint(key, (2,), 0, side - size + 1)
    along = jnp.arange(side)
    rows, columns = ((along >= start) & (along < start + size) for start in (top, left))
    return rows[:, None] & columns[None, :]


def grid(key: Array, side: int) -> Bool[Array, "s s"]:
    """True inside a grid of small squares, of a random period and place."""
    period_key, place_key = jax.random.split(key)
    period = jax.random.randint(period_key, (), *GRID_PERIODS)
    down, across = (jax.random.uniform(place_key, (2,)) * period).astype(jnp.int32)
    along, size = jnp.arange(side), (GRID_SHARE * period).astype(jnp.int32)
    rows, columns = (((along + start) % period) < size for start in (down, across))
    return rows[:, None] & columns[None, :]


def noisy(key_data: UInt32[Array, "2"], image: Image, turned: bool, cut: float, gridded: float) -> Image:
    """Turned, if `turned`; in half of all cases with a black square of `cut` of the side (0: none); with the chance `gridded`
    with a grid of black squares."""
    turn, take_cut, cut_key, take_grid, grid_key = jax.random.split(jax.random.wrap_key_data(key_data), 5)
    image = quarter_turns(turn, image) if turned else image
    side = image.shape[0]
    black = jnp.zeros((side, side), bool)
    if cut:
        black |= cutout(cut_key, side, cut) & (jax.random.uniform(take_cut) < 0.5)
    if gridded:
        black |= grid(grid_key, side) & (jax.random.uniform(take_grid) < gridded)
    return jnp.where(black[..., None], 0, image)
