"""The demo's training alone: a narrow ResNet-18 on small procedural scenes, a few minutes on two cores, no data to fetch.

python -m contrique_jax.main --config configs/demo.py --workdir demo_out/run
"""

from contrique_jax.demo import get_config

__all__ = ["get_config"]
