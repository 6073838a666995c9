"""Crops, colour spaces and flips of a row's pixels."""
