"""The loop, and all that keeps a run alive."""
