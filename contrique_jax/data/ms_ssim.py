"""MS-SSIM (Wang, Simoncelli and Bovik 2003) of image and reference, TensorFlow's, in decibels."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
from jaxtyping import Float, UInt8

from contrique_jax.errors import UserError

LEAST_SIDE = 176  # pixels: a window of 11 at the fifth scale
BEST = 40.0  # decibels, of equal images too
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green, blue: the measure is of brightness alone


def ms_ssim(images: UInt8[np.ndarray, "n h w 3"], references: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, " n"]:
    """-10 log10(1 - MS-SSIM), at most `BEST`: higher is better, and spread where MS-SSIM itself is all near 1. Raises UserError
    if TensorFlow is not installed; sides must be at least `LEAST_SIDE`."""
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            "config.data.teacher = 'ms-ssim': it is TensorFlow's, which is not installed; name a trained model."
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # the accelerators belong to the training step
    luma = [(x.astype(np.float32) @ LUMA)[..., None] for x in (images, references)]
    found = tf.image.ssim_multiscale(*luma, max_val=255).numpy().astype(np.float64)
    return -10 * np.log10(np.clip(1 - found, 10 ** (-BEST / 10), 1))
