"""Crops, colours, flips: what becomes of a row's pixels."""
