"""Re-IQA: `recipe` and what it is made of."""
