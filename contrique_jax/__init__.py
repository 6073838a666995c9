"""CONTRIQUE (arXiv 2110.13266) in JAX: self-supervised training of an image-quality encoder, features, probes, scores."""

__version__ = "0.1.0"
