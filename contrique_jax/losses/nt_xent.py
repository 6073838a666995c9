"""Multi-positive NT-Xent (arXiv 2110.13266, equations 2 and 3): a dense reference, and the blockwise loss training uses.

For an anchor i among all N = 2 views x images x patches, with s_ik = z_i.z_k / temperature and positives p that share its
class: log sum_{k != i} exp(s_ik) - mean_p s_ip; the loss is the mean over anchors. Positives stay in the denominator. An
anchor alone in its class has no positive: with `skip_lone` the mean is over the others, in whose denominators it stays.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from contrique_jax.losses.denominators import log_denominators
from contrique_jax.networks.pooling import normalise


def dense_nt_xent(
    z: Float[Array, "n d"], classes: Int[Array, " n"], temperature: float, skip_lone: bool = False
) -> Float[Array, ""]:
    """The definition, with every N x N array in sight; for tests and for reading. `z` need not be normalised."""
    z = normalise(z)
    similarity = jnp.matmul(z, z.T, precision="highest") / temperature
    others = ~jnp.eye(len(z), dtype=bool)
    positives = (classes[:, None] == classes[None, :]) & others
    denominator = jax.nn.logsumexp(similarity, axis=1, where=others)
    attraction = jnp.sum(similarity, axis=1, where=positives)
    count = jnp.sum(positives, axis=1)
    if not skip_lone:
        return jnp.mean(denominator - attraction / count)
    each = jnp.where(count > 0, denominator - attraction / jnp.maximum(count, 1), 0)
    return jnp.sum(each) / jnp.maximum(jnp.sum(count > 0), 1)


def nt_xent(
    z: Float[Array, "n d"],
    classes: Int[Array, " n"],
    *,
    num_classes: int,
    temperature: float,
    block_size: int,
    axis: str | None = None,
    shared_classes: int | None = None,
    skip_lone: bool = False,
) -> Float[Array, ""]:
    """The loss of this device's rows against everyone's, summed over devices: memory O(total d + block_size^2).

    Args:
      z: projections, float32 [n, d], not yet normalised; with `axis`, the local rows inside a `shard_map`.
      classes: integer classes in [0, num_classes); without `skip_lone` each has at least two members in the global batch.
      num_classes: static number of classes.
      temperature: divides the similarities.
      block_size: the similarity matrix exists in tiles of at most block_size x block_size, recomputed backwards.
      axis: name of the mesh axis over which rows are split, or None.
      shared_classes: from this class on, the members of a class are on one device, and it is not exchanged; None: each
        class may have members anywhere.
      skip_lone: anchors alone in their class are left out of the mean; if none is left, loss and gradient are 0.

    Returns:
      The mean over all anchors, the same on every device.
    """
    z = normalise(z.astype(jnp.float32))
    # the positives' sum of an anchor is its product with its class's sum of projections, less itself
    members = jnp.zeros((num_classes,), jnp.float32).at[classes].add(1.0)
    class_sums = jnp.zeros((num_classes, z.shape[1]), jnp.float32).at[classes].add(z)
    if axis is not None:
        end = num_classes if shared_classes is None else shared_classes
        with jax.named_scope("loss: class sums"):
            everywhere = lax.psum((members[:end], class_sums[:end]), axis)
        members, class_sums = (
            jnp.concatenate([sums, own[end:]]) for sums, own in zip(everywhere, (members, class_sums), strict=True)
        )
    with_positives = jnp.sum(z * class_sums[classes], axis=1) - jnp.sum(z * z, axis=1)
    positives = members[classes] - 1.0
    attraction = with_positives / (jnp.maximum(positives, 1.0) if skip_lone else positives) / temperature
    each = log_denominators(z, temperature, block_size, axis) - attraction
    if skip_lone:
        each = jnp.where(positives > 0, each, 0.0)
    loss, counted = jnp.sum(each), jnp.sum(positives > 0) if skip_lone else len(z)
    if axis is not None:
        with jax.named_scope("loss: sums"):
            loss, counted = lax.psum((loss, counted), axis)
    return loss / jnp.maximum(counted, 1)


def nt_xent_of_patches(
    z: Float[Array, "views rows patches d"],
    classes: Int[Array, " rows"],
    *,
    num_classes: int,
    shared_classes: int,
    temperature: float,
    block_size: int,
    axis: str | None = None,
) -> Float[Array, ""]:
    """`nt_xent` of all views' patches, each of its image's class. From `shared_classes` on, a class is one image's own."""
    views, rows, patches, width = z.shape
    return nt_xent(
        z.reshape(-1, width),
        jnp.broadcast_to(classes[None, :, None], (views, rows, patches)).reshape(-1),
        num_classes=num_classes,
        temperature=temperature,
        block_size=block_size,
        axis=axis,
        shared_classes=shared_classes,
    )
