"""The 25 distortions of KADIS-700k at five levels each, as a library.

    from contrique_jax import distort

    compressed = distort.apply(photo, type=10, level=3)  # uint8 [H, W, 3]
    for row in distort.BANK:
        print(row.type, row.name, row.levels)

`distort.bank` has the same as pure functions, for jit, vmap and tf.data.
"""

from contrique_jax.distort.bank import BANK, class_id
from contrique_jax.distort.on_arrays import apply

__all__ = ["BANK", "apply", "class_id"]
