"""CONTRIQUE on the statistics of a frozen network: `recipe` and what it is made of."""
