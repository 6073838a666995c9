"""The Vision Transformer against timm's numbers, and what it promises of grids and taps."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrique_jax.networks.model_folder import from_flat, shapes_of
from contrique_jax.networks.skeleton import skeleton
from contrique_jax.networks.vit import Size, ViT, as_map, positions
from tests.reference_weights import close, system_state

SMALL = Size(patch=8, width=48, heads=4, side=4, taps=(0, 1, 2, 3))
FLOAT32 = jnp.dtype("float32")


@pytest.fixture(scope="module")
def timms(shared: Path) -> dict[str, np.ndarray]:
    """timm's names and weights, of the layers that count."""
    state = {name.removeprefix("small.vit."): a for name, a in system_state(shared, "vit_small").items()}
    return {name: array for name, array in state.items() if not name.startswith(("norm.", "head."))}


def test_every_block_and_the_gradient_are_timms(shared: Path, timms: dict[str, np.ndarray]):
    network = skeleton(ViT, SMALL, FLOAT32).bind(from_flat(timms))
    with np.load(shared / "systems/reference/vit_small.npz") as data:
        images, cotangent = data["image"].transpose(0, 2, 3, 1), data["cotangent"]

        def last(images: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
            found = network(images)
            return jnp.sum(found[3] * cotangent), found

        gradient, found = jax.jit(jax.grad(last, has_aux=True))(jnp.asarray(images))
        close(network.tokens(jnp.asarray(images)), data["tokens"], 1e-5)
        for i, tokens in enumerate(found):
            close(tokens, data[f"block{i}"], 1e-5)
        close(gradient.transpose(0, 3, 1, 2), data["grad_image"], 1e-5)


def test_what_lies_behind_the_last_tap_is_not_there(timms: dict[str, np.ndarray]):
    shapes = shapes_of(skeleton(ViT, SMALL._replace(taps=(1, 0)), FLOAT32).shapes())
    wanted = {name: array.shape for name, array in timms.items() if not name.startswith(("blocks.2.", "blocks.3."))}
    assert shapes == wanted


def test_positions_of_another_grid_are_timms(torch):
    """Which are PyTorch's bicubic ones with antialiasing."""
    table = np.random.default_rng(0).standard_normal((1, 50, 6)).astype(np.float32)
    square = torch.from_numpy(table[:, 1:].reshape(1, 7, 7, 6).transpose(0, 3, 1, 2).copy())
    for grid in [(7, 7), (3, 5), (12, 9), (1, 20)]:
        theirs = torch.nn.functional.interpolate(square, size=grid, mode="bicubic", antialias=True).numpy()
        theirs = theirs.transpose(0, 2, 3, 1).reshape(1, -1, 6)
        close(positions(jnp.asarray(table), grid), np.concatenate([table[:, :1], theirs], axis=1), 1e-5)


def test_an_image_of_another_size_has_a_grid_of_its_own_and_squares_cut_off_are_not_seen():
    own = skeleton(ViT, SMALL._replace(taps=(0,)), FLOAT32)
    network = own.bind(own.init(0))
    image = np.random.default_rng(1).random((1, 27, 40, 3), np.float32)
    tokens = network(jnp.asarray(image))[0]
    assert as_map(tokens, (3, 5)).shape == (1, 3, 5, 48)
    np.testing.assert_array_equal(tokens, network(jnp.asarray(image[:, :24]))[0])


def test_biases_norms_and_positions_do_not_decay():
    own = skeleton(ViT, SMALL._replace(taps=(0,)), FLOAT32)
    touched = {".".join(e.key for e in path) for path, yes in jax.tree_util.tree_leaves_with_path(own.decays()) if yes}
    assert touched == {"patch_embed.proj.weight", *(f"blocks.0.{layer}.weight" for layer in (
        "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"
    ))}  # fmt: skip
    assert np.std(own.init(0)["params"]["blocks"]["0"]["mlp"]["fc1"]["weight"]) == pytest.approx(0.02, rel=0.02)
