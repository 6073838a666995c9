"""Architectures, and the folder that a model is stored in."""
