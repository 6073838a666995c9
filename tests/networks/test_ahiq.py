"""AHIQ's modules and the whole network against the original's numbers."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrique_jax.networks.ahiq import Ahiq, DeformNet, Pair, Regressor, Widths
from contrique_jax.networks.layers import RUNNING
from contrique_jax.networks.model_folder import from_flat, shapes_of
from contrique_jax.networks.resnet import ResNet
from contrique_jax.networks.skeleton import skeleton
from contrique_jax.networks.vit import Size, ViT, as_map
from tests.reference_weights import close, close_summary, gradient_norms, nchw, nhwc, system_state

FLOAT32 = jnp.dtype("float32")

PATCHES = ("vit.patch_embed.proj.weight", "vit.pos_embed")


class FirstLayer(ResNet):
    """A ResNet-50 up to its first layer."""

    def __init__(self) -> None:
        super().__init__("resnet50", 64, dtype=FLOAT32, layers=1)


@pytest.fixture(scope="module")
def parts(shared: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(small weights by name, the original's numbers)."""
    with np.load(shared / "systems/reference/ahiq_parts.npz") as data:
        numbers = {name: data[name] for name in data}
    return system_state(shared, "ahiq_parts"), numbers


def _of(state: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


@pytest.mark.parametrize(("part", "halvings"), [("small8", 1), ("small16", 2)])
def test_the_deformable_fusion_and_its_gradients_are_the_originals(parts, part: str, halvings: int):
    state, data = parts
    flat = _of(state, f"{part}.deform_net.")
    flat["conv_offset.weight"] = (flat["conv_offset.weight"].astype(np.float64) * 1.5).astype(np.float32)
    variables = from_flat(flat)
    own = skeleton(DeformNet, Widths(deep=12, shallow=8, fused=6, halvings=halvings), FLOAT32)

    def run(params, deep, shallow):
        network = own.bind({"params": params, "batch_stats": {}})
        offsets = network.offsets(deep, 2**halvings)
        out = network(shallow, offsets)
        return jnp.sum(out * nhwc(data[f"{part}/cotangent"])), (offsets, out)

    inputs = jnp.asarray(nhwc(data[f"{part}/vit"])), jnp.asarray(nhwc(data[f"{part}/cnn"]))
    gradients, found = jax.jit(jax.grad(run, (0, 1, 2), has_aux=True))(variables["params"], *inputs)
    for name, array in zip(("offset", "out", "grad_vit", "grad_cnn"), (*found, *gradients[1:]), strict=True):
        close(nchw(array), data[f"{part}/{name}"], 2e-5)
    for name, layer in (("deform", "deform"), ("offset", "conv_offset")):
        kernel = gradients[0][layer]["weight"].transpose(3, 2, 0, 1)
        close(kernel, data[f"{part}/grad_{name}_weight"], 2e-5)


def test_the_regressor_and_its_gradients_are_the_originals(parts):
    state, data = parts
    variables = from_flat(_of(state, "small.regressor."))
    network = skeleton(Regressor, 10, Widths(smoothed=32), FLOAT32).bind(variables)

    def run(distorted, reference):
        found = network(distorted, reference)
        return jnp.sum(found.score), found.score

    joined = [
        jnp.asarray(nhwc(np.concatenate([data[f"regressor/f_{side}"], data[f"regressor/cnn_{side}"]], axis=1)))
        for side in ("dis", "ref")
    ]
    gradients, score = jax.jit(jax.grad(run, (0, 1), has_aux=True))(*joined)
    close(score[:, None], data["regressor/pred"], 1e-5)
    for side, gradient in zip(("dis", "ref"), gradients, strict=True):
        wanted = np.concatenate([data[f"regressor/grad_f_{side}"], data[f"regressor/grad_cnn_{side}"]], axis=1)
        close(nchw(gradient), wanted, 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("patch", [8, 16])
def test_the_whole_network_is_the_originals(shared: Path, patch: int):
    state = system_state(
        shared, "ahiq", None, {PATCHES[0]: (768, 3, patch, patch), PATCHES[1]: (1, 1 + (224 // patch) ** 2, 768)}
    )
    state["deform_net.conv_offset.weight"] *= 0.25
    r = np.random.default_rng(2204)
    reference = r.integers(0, 256, (2, 224, 224, 3), np.uint8)
    distorted = np.clip(reference + r.integers(-40, 41, reference.shape), 0, 255)
    vit = skeleton(ViT, Size(patch, 768, 12, 224 // patch, tuple(range(5))), FLOAT32)
    names = shapes_of(vit.shapes())
    tokens = jax.jit(vit.bind(from_flat({k: v for k, v in _of(state, "vit.").items() if k in names})))
    kept = ("conv1.", "bn1.", "layer1.")
    layer1 = from_flat({k: v for k, v in _of(state, "resnet50.").items() if k.startswith(kept)})
    resnet = skeleton(FirstLayer).bind(layer1)
    shallow = jax.jit(lambda x: [y for y, _ in resnet.layer1.blocks(resnet.stem(x, RUNNING), RUNNING)])
    maps, side, at = {}, 224 // patch, f"p{patch}"
    with np.load(shared / "systems/reference/ahiq.npz") as data:
        for name, images in (("dis", distorted), ("ref", reference)):
            x = (jnp.asarray(images, jnp.float32) / 255 - 0.5) / 0.5
            found = tokens(x), shallow(x)
            for i, block in enumerate(found[0]):
                close_summary(block, data, f"{at}/vit/{name}/block{i}", 2e-5)
            for i, block in enumerate(found[1] if patch == 8 else ()):
                close_summary(nchw(block), data, f"{at}/resnet/{name}/layer1.{i}", 2e-5)
            deep = jnp.concatenate([as_map(each, (side, side)) for each in found[0]], axis=3)
            maps[name] = Pair(deep, jnp.concatenate(found[1], axis=3))
        heads = {k: v for k, v in state.items() if k.startswith(("deform_net.", "regressor."))}
        variables = from_flat(heads)
        own = skeleton(Ahiq, Widths(halvings=patch // 8), FLOAT32)

        def judge(params):
            found = own.bind({"params": params, "batch_stats": {}})(maps["dis"], maps["ref"])
            return jnp.mean((found.score - jnp.array([0.3, 0.8])) ** 2), found

        if patch == 16:  # the same but for one stride: no gradient
            check(jax.jit(judge)(variables["params"]), data, at)
            return
        (mse, judged), gradients = jax.jit(jax.value_and_grad(judge, has_aux=True))(variables["params"])
        check((mse, judged), data, at)
        norms = gradient_norms(gradients)
        wanted = dict(zip(data["p8/grad_names"], data["p8/grad_norms"], strict=True))
        assert set(norms) == set(wanted)
        off = {name: abs(norms[name] / norm - 1) for name, norm in wanted.items()}
        # rounding brings some values over a ReLU's or a pixel's edge, where slopes jump
        assert max(off.values()) <= 1e-3, off
        same = jax.jit(own.bind(variables))(maps["ref"], maps["ref"]).score
        close(same[:, None], data["p8/pred_identical_pair"], 2e-5)


def check(found, data, at: str) -> None:
    """Loss, scores and both maps."""
    mse, judged = found
    close(judged.score[:, None], data[f"{at}/pred"], 2e-5)
    close(judged.score_map[:, None], data[f"{at}/regressor/score_map"], 2e-5)
    close(judged.weight_map[:, None], data[f"{at}/regressor/weight_map"], 2e-5)
    close(mse, data[f"{at}/mse"], 5e-5)
