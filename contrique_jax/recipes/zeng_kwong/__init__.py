"""A system of the kind of Zeng and Kwong's: `recipe` and its config."""
