"""A blind network taught by a teacher that may see more: `recipe` and its config."""
