"""`python -m contrique_jax.distort` is the command `contrique-jax distort`."""

import sys

from contrique_jax.data.distort_folder import main
from contrique_jax.errors import run_verb

if __name__ == "__main__":
    sys.exit(run_verb(main))
