"""CONVIQT, quality of videos: `recipe` and what it is made of."""
