"""SaTQA's blocks and its whole judge against the original's numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrique_jax.networks.grid_encoder import GridEncoder
from contrique_jax.networks.grid_encoder import Size as GridSize
from contrique_jax.networks.layers import RUNNING, AtEnd
from contrique_jax.networks.model_folder import from_flat, to_flat
from contrique_jax.networks.pooling import adaptive_average_pool, cell_means
from contrique_jax.networks.satqa import Judge, MultiStream, Size
from contrique_jax.networks.skeleton import skeleton
from contrique_jax.networks.vit import Size as ViTSize
from contrique_jax.networks.vit import ViT
from tests.reference_weights import close, system_state

FLOAT32 = jnp.dtype("float32")
FACTORS = {"p_conv.weight": 0.15, "attn.qkv.weight": 0.35}  # on the rule's weights; 0.7 on other matrices and kernels


def weights_of_blocks(state: dict[str, np.ndarray], without: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """With the reference's factors; unused arrays left out."""

    def factor(name: str, array: np.ndarray) -> float:
        return next((f for end, f in FACTORS.items() if name.endswith(end)), 0.7 if array.ndim > 1 else 1.0)

    used = {name: array for name, array in state.items() if not any(part in name for part in without)}
    return {name: np.float32(factor(name, array)) * array for name, array in used.items()}


@pytest.mark.parametrize("case", ["even", "odd"])
def test_a_block_and_its_gradients_are_the_originals(shared, case):
    """Width 48, streams of 16, 12 and 20 channels, on 8 x 8 and 7 x 7 places."""
    side = 8 if case == "even" else 7
    state = {name.removeprefix("msb."): array for name, array in system_state(shared, "satqa_parts").items()}
    variables = from_flat(weights_of_blocks(state, () if side % 2 else ("ups_proj",)))
    made = skeleton(MultiStream, 48, (16, 12, 20), side, 8, FLOAT32)
    with np.load(shared / "systems" / "reference" / "satqa_parts.npz") as data:
        stored = {name.removeprefix(f"{case}/"): data[name] for name in data.files if name.startswith(case)}

    def run(params, x):
        out = made.bind(variables | {"params": params})(x.reshape(2, side, side, 48)).reshape(x.shape)
        return jnp.sum(out * stored["cotangent"]), out

    gradients, out = jax.jit(jax.grad(run, argnums=(0, 1), has_aux=True))(variables["params"], stored["input"])
    close(out, stored["output"], 2e-5)
    close(gradients[1], stored["grad_input"], 2e-5)
    flat = to_flat({"params": gradients[0], "batch_stats": {}})
    norms = {name.removeprefix("grad_norm/"): norm for name, norm in stored.items() if name.startswith("grad_norm/")}
    assert flat.keys() == norms.keys()
    for name, array in flat.items():
        np.testing.assert_allclose(np.linalg.norm(array), norms[name], rtol=1e-4, err_msg=name)
    for name in ("dconv.p_conv.weight", "ca.fc.0.weight", "sa.conv.weight"):
        close(flat[name], stored[f"grad/{name}"], 1e-4)


@pytest.mark.parametrize("corner", ["top left", "bottom right"])
@pytest.mark.parametrize("cells", [2, 7])
def test_a_grid_of_images_in_a_padded_batch_is_that_of_each_alone(corner, cells):
    """Also if a side is shorter than the grid, whose cells then overlap; what lies outside is not seen."""
    x = np.random.default_rng(4).standard_normal((2, 9, 11, 3)).astype(np.float32)
    sizes = np.array([(9, 11), (5, 8)])
    alone = [
        image[:h, :w] if corner == "top left" else image[9 - h :, 11 - w :]
        for image, (h, w) in zip(x, sizes, strict=True)
    ]
    found = cell_means(jnp.asarray(x), jnp.asarray(sizes) if corner == "top left" else AtEnd(jnp.asarray(sizes)), cells)
    for ours, image in zip(found, alone, strict=True):
        wanted = adaptive_average_pool(jnp.asarray(image)[None], cells)[0]
        np.testing.assert_allclose(ours.reshape(cells * cells, 3), wanted, atol=1e-5)


def judge_variables(shared) -> tuple[dict, dict]:
    """The frozen ViT's weights and the judge's."""
    state = system_state(shared, "satqa", "niqa")
    vit = {name.removeprefix("vit."): array for name, array in state.items() if name.startswith("vit.")}
    unused = ("norm.", "head.", *(f"blocks.{i}." for i in range(7, 12)))
    vit = {name: array for name, array in vit.items() if not name.startswith(unused)}
    rest = {name: array for name, array in state.items() if not name.startswith("vit.")}
    blocks = {name: array for name, array in rest.items() if name.startswith("block.") and "down_conv" not in name}
    without = tuple(f"block.{stage}.{i}.ups_proj" for stage, depth in ((0, 1), (2, 5)) for i in range(depth))
    halvings = {name: np.float32(0.7 if a.ndim > 1 else 1) * a for name, a in rest.items() if "down_conv" in name}
    others = {
        name: np.float32(0.5 if name in ("W_Q.weight", "W_K.weight") else 1) * array
        for name, array in rest.items()
        if not name.startswith("block.")
    }
    return from_flat(vit), from_flat(weights_of_blocks(blocks, without) | halvings | others)


@pytest.mark.slow
def test_the_judge_is_the_originals(shared):
    """ViT-B/8 and nine blocks on two images of 224 pixels, from the encoder's grid that the original gives; L1's gradient."""
    frozen, variables = judge_variables(shared)
    with np.load(shared / "systems" / "reference" / "satqa.npz") as data:
        stored = dict(data)
    images = np.random.default_rng(20231206).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8).astype(np.float32) / 255
    size = Size(3072, 768, 28, (1, 5, 3), ((256, 256, 256), (192, 192, 384), (48, 48, 672)), 8, 1792, 0.1, "float32")
    tokens = jax.jit(skeleton(ViT, ViTSize(8, 768, 12, 28, (1, 2, 5, 6)), FLOAT32).bind(frozen))(images)
    for block, found in zip((1, 2, 5, 6), tokens, strict=True):
        summarised(found, stored, f"vit/block{block}")
    side_by_side = jnp.concatenate(tokens, axis=-1)[:, 1:].reshape(2, 28, 28, 3072)
    made = skeleton(Judge, size)
    grid = encoder_grid(shared, images)
    backbone = jax.jit(lambda tokens: made.bind(variables).backbone(tokens))
    summarised(jnp.reshape(backbone(side_by_side), (2, 49, 768)), stored, "niqa/block4.2")

    def loss(params):
        score = made.bind(variables | {"params": params})(side_by_side, grid)
        return jnp.mean(jnp.abs(score - stored["niqa/l1_target"][:, 0])), score

    (value, score), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    np.testing.assert_allclose(score, stored["niqa/score"][:, 0], rtol=1e-4)
    np.testing.assert_allclose(value, stored["niqa/l1_loss"], rtol=1e-4)
    flat = to_flat({"params": gradient, "batch_stats": {}})
    norms = dict(zip(stored["niqa/grad_names"], stored["niqa/grad_norms"], strict=True))
    assert flat.keys() == {name for name, norm in norms.items() if norm > 0}
    for name, array in flat.items():
        # 4e-3 found: the gradient of a maximum over channels that are nearly equal goes to one or the other
        np.testing.assert_allclose(np.linalg.norm(array), norms[name], rtol=1e-2, err_msg=name)
    for name in ("fc.2.weight", "feature_proj.weight", "block.2.0.attn.qkv.weight"):
        close(flat[name][:16, :64], stored[f"niqa/grad/{name}"], 1e-2)


def encoder_grid(shared, images: np.ndarray) -> jax.Array:
    state = system_state(shared, "satqa", "cmodel")
    flat = {
        name.replace("model.", "encoder.", 1): array
        for name, array in state.items()
        if name.startswith(("model.", "pool")) and not name.startswith("model.fc.")
    }
    network = skeleton(GridEncoder, GridSize("resnet50", 64, 7, 512, 0, 0, "float32")).bind(from_flat(flat))
    return jax.jit(lambda images: network.grid(images, RUNNING))(images)


def summarised(found: jax.Array, stored: dict[str, np.ndarray], stage: str) -> None:
    """Tokens against what the reference keeps of them."""
    assert found.shape == tuple(stored[f"{stage}/shape"])
    close(np.asarray(found).reshape(-1)[stored[f"{stage}/index"]], stored[f"{stage}/value"], 1e-4)
