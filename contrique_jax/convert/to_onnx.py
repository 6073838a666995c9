"""`contrique-jax convert to-onnx M OUT.onnx`: the encoder as an ONNX graph, written node by node."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

import numpy as np

from contrique_jax import __version__
from contrique_jax.config import ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.io.outputs import atomic_write, output_path
from contrique_jax.networks import lite0
from contrique_jax.networks.description import read_description
from contrique_jax.networks.encoder import IMAGENET_DEVIATION, IMAGENET_MEAN, Variables, feature_width
from contrique_jax.networks.host_pooling import LEAST_VARIANCE
from contrique_jax.networks.layers import EPSILON
from contrique_jax.networks.lite0 import CENTRE, HALF_RANGE
from contrique_jax.networks.model_folder import NO_LICENCE, content_hash, preprocessing, to_flat
from contrique_jax.networks.resnet import ARCHITECTURES, Bottleneck
from contrique_jax.training.load import load_network, model_folder

OPSET, IR_VERSION = 18, 8  # of the end of 2022, so that runtimes of some age read it
HOW_TO = (
    "Run it twice, on the image and on the image resized by Pillow's bicubic to (width // 2, height // 2), and concatenate "
    "the two outputs, full scale first: these are the features that a probe reads."
)


def to_onnx_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The encoder as an ONNX graph: images float32 [batch, 3, height, width], RGB in [0, 1], any size -> features "
        "float32 [batch, width] of one scale, L2-normalised if pooled. " + HOW_TO
    )
    parser.epilog = "Example: contrique-jax convert to-onnx runs/first encoder.onnx"
    parser.add_argument("model", metavar="M", help="a model folder, a run's workdir or a checkpoint in it")
    parser.add_argument("out", metavar="OUT.onnx")


def to_onnx(args: argparse.Namespace) -> None:
    """Raises UserError if there is no such model or the onnx package is not installed."""
    out = output_path("OUT", args.out, (".onnx",))
    model, variables = load_network(args.model)
    folder = model_folder(args.model)
    licence = read_description(folder).get("licence") if folder else None
    stored = build(model, variables, {"licence": str(licence or NO_LICENCE)}).SerializeToString()
    with atomic_write(out) as temporary:
        temporary.write_bytes(stored)
    print(f"{out}: {model.encoder}, images [batch, 3, height, width] -> features [batch, {feature_width(model)}]")
    print(HOW_TO)
    if folder is None and not args.model.startswith("random:"):
        print("the optimiser's state and the projector stay in the checkpoint")


def build(model: ModelConfig, variables: Variables, notes: dict[str, str]) -> Any:
    """The network up to its features as an `onnx.ModelProto`; `notes` go into its metadata."""
    try:
        import onnx
    except ImportError as error:
        raise UserError(f"onnx cannot be imported ({error}); pip install 'contrique-jax[onnx]'.") from error
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    graph = _Graph(to_flat(variables))
    graph.encoder(model)
    proto = helper.make_graph(
        [helper.make_node(kind, inputs, [output], **settings) for kind, inputs, output, settings in graph.nodes],
        "contrique_encoder",
        [helper.make_tensor_value_info("images", float32, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("features", float32, ["batch", feature_width(model)])],
        [onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
    )
    made = helper.make_model(
        proto,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="contrique_jax",
        producer_version=__version__,
    )
    known = {
        "model_hash": content_hash(model, variables),
        "architecture": json.dumps(dataclasses.asdict(model)),
        "preprocessing": json.dumps(preprocessing(model)),
        "two_scales": HOW_TO,
    }
    helper.set_model_props(made, known | notes)
    onnx.checker.check_model(made)
    return made


class _Graph:
    """The nodes of an encoder in order: (operator, inputs, output, settings). Every method gives its output's name."""

    def __init__(self, flat: dict[str, np.ndarray]):
        self.flat = flat
        self.constants: dict[str, np.ndarray] = {}
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []

    def encoder(self, model: ModelConfig) -> None:
        x = "images"
        scales: dict[str, tuple[Any, Any]] = {
            "imagenet": (IMAGENET_MEAN, IMAGENET_DEVIATION),
            "centred": ([CENTRE / 255], [HALF_RANGE / 255]),
        }
        if model.input_scaling in scales:
            for operator, name, values in zip(
                ("Sub", "Div"), ("mean", "deviation"), scales[model.input_scaling], strict=True
            ):
                x = self.node(operator, x, self.constant(name, np.array(values, np.float32)[:, None, None]))
        lite = model.encoder == "efficientnet_lite0"
        maps = self.lite_stages(x) if lite else self.stages(x, model)
        if model.features == "stages":
            self.node("Concat", *(part for x in maps for part in self.statistics(x)), output="features", axis=1)
            return
        x = self.lite(maps[-1], "encoder.conv_head", "encoder.bn2") if lite else maps[-1]
        x = self.node("Flatten", self.node("GlobalAveragePool", x), axis=1)
        norm = self.node("ReduceL2", x, self.constant("channels", np.array([1], np.int64)), keepdims=1)
        norm = self.node("Max", norm, self.constant("least_norm", np.array(1e-12, np.float32)))
        self.node("Div", x, norm, output="features")

    def statistics(self, x: str) -> tuple[str, str]:
        """Mean and deviation of a map, [batch, channels] each."""
        mean = self.node("GlobalAveragePool", x)
        off = self.node("Sub", x, mean)
        variance = self.node("GlobalAveragePool", self.node("Mul", off, off))
        least = self.constant("least_variance", np.array(LEAST_VARIANCE, np.float32))
        deviation = self.node("Sqrt", self.node("Add", variance, least))
        return self.node("Flatten", mean, axis=1), self.node("Flatten", deviation, axis=1)

    def stages(self, x: str, model: ModelConfig) -> list[str]:
        """The last map of each of a ResNet's layers."""
        x = self.node("Relu", self.convolution(x, "encoder.conv1", "encoder.bn1", 2))
        x = self.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        block, depths = ARCHITECTURES[model.encoder]
        maps = []
        for stage, depth in enumerate(depths):
            for i in range(depth):
                x = self.block(x, f"encoder.layer{stage + 1}.{i}", 2 if stage and not i else 1, block is Bottleneck)
            maps.append(x)
        return maps

    def lite_stages(self, x: str) -> list[str]:
        """The last map of each of an EfficientNet-Lite0's stages."""
        x = self.lite(x, "encoder.conv_stem", "encoder.bn1", 2)
        maps = []
        for number, (_, first, expansion, _, depth) in enumerate(lite0.STAGES):
            for i in range(depth):
                name, before = f"encoder.blocks.{number}.{i}", x
                if expansion > 1:
                    x = self.lite(x, f"{name}.conv_pw", f"{name}.bn1")
                spatial, last, final = ("bn2", "conv_pwl", "bn3") if expansion > 1 else ("bn1", "conv_pw", "bn2")
                x = self.lite(x, f"{name}.conv_dw", f"{name}.{spatial}", 1 if i else first)
                x = self.lite(x, f"{name}.{last}", f"{name}.{final}", activation=False)
                x = self.node("Add", x, before) if i else x
            maps.append(x)
        return maps

    def lite(self, x: str, kernel: str, norm: str, stride: int = 1, activation: bool = True) -> str:
        """A convolution padded as SAME, its BatchNorm, and ReLU6 if asked for."""
        x = self.convolution(x, kernel, norm, stride, lite0.EPSILON, same=True)
        if not activation:
            return x
        bounds = (self.constant(name, np.array(value, np.float32)) for name, value in (("zero", 0), ("six", 6)))
        return self.node("Clip", x, *bounds)

    def block(self, x: str, name: str, stride: int, bottleneck: bool) -> str:
        strides = (1, stride, 1) if bottleneck else (stride, 1)
        out = x
        for number, step in enumerate(strides, 1):
            out = self.node("Relu", out) if number > 1 else out
            out = self.convolution(out, f"{name}.conv{number}", f"{name}.bn{number}", step)
        if f"{name}.downsample.0.weight" in self.flat:
            x = self.convolution(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
        return self.node("Relu", self.node("Add", out, x))

    def convolution(
        self, x: str, kernel: str, norm: str, stride: int, epsilon: float = EPSILON, same: bool = False
    ) -> str:
        """A convolution and its BatchNorm; runtimes make one of them. `same`: padded as TensorFlow's SAME."""
        weight = self.flat[f"{kernel}.weight"]
        size = weight.shape[2]
        settings: dict[str, Any] = {"auto_pad": "SAME_UPPER"} if same else {"pads": [(size - 1) // 2] * 4}
        if kernel.endswith("conv_dw"):
            settings["group"] = weight.shape[0]
        weight_name = self.constant(f"{kernel}.weight", weight)
        x = self.node("Conv", x, weight_name, kernel_shape=[size, size], strides=[stride, stride], **settings)
        names = [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        return self.node(
            "BatchNormalization", x, *(self.constant(name, self.flat[name]) for name in names), epsilon=epsilon
        )

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants[name] = array
        return name

    def node(self, operator: str, *inputs: str, output: str = "", **settings: Any) -> str:
        output = output or f"{operator}_{len(self.nodes)}"
        self.nodes.append((operator, list(inputs), output, settings))
        return output
