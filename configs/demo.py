"""The demo's training alone: a head on the embedded network, on small procedural scenes; a minute on two cores.

python -m contrique_jax.main --config configs/demo.py --workdir demo_out/run
"""

from contrique_jax.demo_unseen import get_config

__all__ = ["get_config"]
