"""Images and their references as the rows of one batch, in turn: a pair stays on its device, however the batch is split."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

Tree = TypeVar("Tree")


def in_turn(images: Shaped[Array, "n *rest"], references: Shaped[Array, "n *rest"]) -> Shaped[Array, "m *rest"]:
    """The first of one, the first of the other, the second of one, ..."""
    return jnp.stack([images, references], axis=1).reshape(-1, *images.shape[1:])


def apart(rows: Tree) -> tuple[Tree, Tree]:
    """The inverse, of every array of a tree."""

    def half(place: int) -> Tree:
        return jax.tree.map(lambda x: x.reshape(-1, 2, *x.shape[1:])[:, place], rows)

    return half(0), half(1)
