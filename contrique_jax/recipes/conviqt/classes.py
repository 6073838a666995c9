"""The classes of clips that are made: the bank's 25 kinds, frame by frame, and four along time, at five levels each."""

from __future__ import annotations

from contrique_jax.distort.bank import NUM_LEVELS, NUM_TYPES

TEMPORAL = ("dropped", "frozen", "flicker", "compression")  # the kinds behind the bank's
NUM_KINDS = NUM_TYPES + len(TEMPORAL)
CLEAN = NUM_KINDS * NUM_LEVELS  # the class of a clip without distortion
NUM_CLASSES = CLEAN + 1
