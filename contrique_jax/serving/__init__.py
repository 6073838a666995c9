"""A trained model behind HTTP: a page to drop images on, and the same as JSON."""
