"""Data sets with opinion scores: public ones by name, any from a csv."""

from contrique_jax.data.iqa_sets.layouts import layout_of
from contrique_jax.data.iqa_sets.sets import (
    LOWER_IS_BETTER,
    SCORE_COLUMNS,
    ScoredImages,
    csv_columns,
    read_scores,
    read_set,
)

__all__ = [
    "LOWER_IS_BETTER",
    "SCORE_COLUMNS",
    "ScoredImages",
    "csv_columns",
    "layout_of",
    "read_scores",
    "read_set",
]
