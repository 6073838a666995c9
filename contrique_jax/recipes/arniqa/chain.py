"""Chains of distortions (arXiv 2310.14918, section 3.1): drawn, and applied one after another with a clip between."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8, UInt32

from contrique_jax.augment.grouped import by_kind
from contrique_jax.distort import brightness, jpeg2000, sharpness
from contrique_jax.distort.bank import BANK
from contrique_jax.recipes.arniqa.groups import CONTRAST_B, LONGEST, TYPES, groups_of

LEVELS = 5


class Chain(NamedTuple):
    """What becomes of a record; types are 0 behind the chain's end."""

    types: Int[Array, "7"]
    levels: Int[Array, "7"]  # 1..5


def level_chances(deviation: float) -> Float[np.ndarray, "5"]:
    """The chance of each level: as exp(-i^2 / (2 deviation^2)), i = 0..4."""
    weights = np.exp(-(np.arange(LEVELS) ** 2) / (2 * deviation**2))
    return weights / weights.sum()


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def draw_chain(
    key: Array, longest: int, undistorted_share: float, deviation: float, types: tuple[int, ...] = ()
) -> Chain:
    """A length of 1..`longest`, that many groups in random order, of each a type, of each a level."""
    skip_key, length_key, order_key, type_key, level_key = jax.random.split(key, 5)
    length = jax.random.randint(length_key, (), 1, longest + 1)
    length = jnp.where(jax.random.uniform(skip_key) < undistorted_share, 0, length)
    groups = groups_of(types)
    # places behind the groups there are stay unused
    order = jnp.concatenate(
        [jax.random.permutation(order_key, len(groups)), jnp.zeros(LONGEST - len(groups), jnp.int32)]
    )
    sizes = jnp.asarray([len(group) for group in groups])
    table = jnp.asarray([[*group, *[0] * (max(map(len, groups)) - len(group))] for group in groups])
    within = jnp.floor(jax.random.uniform(type_key, (LONGEST,)) * sizes[order]).astype(jnp.int32)
    bounds = jnp.asarray(np.cumsum(level_chances(deviation))[:-1], jnp.float32)
    levels = 1 + jnp.searchsorted(bounds, jax.random.uniform(level_key, (LONGEST,)), side="right")
    used = jnp.arange(LONGEST) < length
    return Chain(jnp.where(used, table[order, within], 0).astype(jnp.int32), levels.astype(jnp.int32))


def _contrast_b(key: Array, image: Float[Array, "h w 3"], value: Float[Array, ""]) -> Float[Array, "h w 3"]:
    return 2 * value * image + 0.5 - value


# where the levels are not the bank's
_OWN: dict[int, tuple[tuple[float, ...], Callable[..., Array]]] = {
    9: ((16, 32, 45, 120, 170), jpeg2000.jpeg2000),
    18: ((0, 0.08, -0.08, 0.15, -0.15), brightness.shift),
    25: ((0, 0.15, -0.4, 0.3, -0.6), sharpness.contrast),
    CONTRAST_B: ((0.4, 0.3, 0.2, 0.1, 0.05), _contrast_b),
}


def _applied(kind: int, key: Array, image: Float[Array, "h w 3"], level: Int[Array, ""]) -> Float[Array, "h w 3"]:
    if kind in _OWN:
        values, operation = _OWN[kind]
        return operation(key, image, jnp.asarray(values, jnp.float32)[level - 1])
    return BANK[kind - 1].apply(key, image, level)


def one_distortion(
    number: Int[Array, ""],
    key: UInt32[Array, "2"],
    image: Float[Array, "h w 3"],
    level: Int[Array, ""],
    types: tuple[int, ...] = TYPES,
) -> Float[Array, "h w 3"]:
    """`image` [0, 1] under the type types[number - 1], clipped; 0 gives it back."""
    wrapped = jax.random.wrap_key_data(key, impl="threefry2x32")
    branches = [functools.partial(_applied, kind, wrapped) for kind in types]
    return jnp.clip(jax.lax.switch(number, [lambda x, level: x, *branches], image, level), 0, 1)


def numbered(drawn: Int[Array, "*n"], types: tuple[int, ...] = TYPES) -> Int[Array, "*n"]:
    """Types -> their places in `types` from 1, 0 for none."""
    places = np.zeros(CONTRAST_B + 1, np.int32)
    places[list(types)] = np.arange(1, len(types) + 1)
    return jnp.asarray(places)[drawn]


def _step_keys(key: UInt32[Array, "2"], crop: Int[Array, ""]) -> UInt32[Array, "7 2"]:
    """Of each link of the chain: what is random inside a type is drawn anew for each crop."""
    own = jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), crop)
    return jax.vmap(lambda link: jax.random.key_data(jax.random.fold_in(own, link)))(jnp.arange(LONGEST))


def degrade(
    key: UInt32[Array, "2"], crops: UInt8[Array, "c h w 3"], chain: Chain, types: tuple[int, ...] = TYPES
) -> Float[Array, "c h w 3"]:
    """All crops of one record under its chain, which has `types` alone, one branch at a time; in [0, 1]."""
    numbers = numbered(chain.types, types)

    def whole(crop: Array, place: Array) -> Array:
        def link(image: Array, step: tuple[Array, Array, Array]) -> tuple[Array, None]:
            number, level, own = step
            return one_distortion(number, own, image, level, types), None

        steps = (numbers, chain.levels, _step_keys(key, place))
        return jax.lax.scan(link, crop.astype(jnp.float32) / 255, steps)[0]

    return jax.lax.map(lambda both: whole(*both), (crops, jnp.arange(len(crops))))


def degrade_many(
    keys: UInt32[Array, "n 2"], crops: UInt8[Array, "n c h w 3"], chains: Chain, types: tuple[int, ...] = TYPES
) -> Float[Array, "n c h w 3"]:
    """Many records at once: at each link those under one type go through it together."""
    n, count = crops.shape[:2]
    places = jnp.tile(jnp.arange(count), n)
    own = jax.vmap(_step_keys)(jnp.repeat(keys, count, 0), places)  # [n c, 7, 2]
    numbers, levels = (jnp.repeat(part, count, 0) for part in (numbered(chains.types, types), chains.levels))

    def link(images: Array, step: Array) -> tuple[Array, None]:
        rows = (own[:, step], images, levels[:, step])
        return by_kind(
            functools.partial(one_distortion, types=types), numbers[:, step], rows, kinds=len(types) + 1
        ), None

    images = crops.reshape(n * count, *crops.shape[2:]).astype(jnp.float32) / 255
    return jax.lax.scan(link, images, jnp.arange(LONGEST))[0].reshape(crops.shape)
