"""`contrique-jax convert to-torch M OUT`: a model as a PyTorch state dict."""

from __future__ import annotations

import argparse

import numpy as np

from contrique_jax.convert.torch_file import SUFFIXES, write_state_dict
from contrique_jax.convert.torch_names import COUNTER, counters, original_name
from contrique_jax.errors import UserError
from contrique_jax.io.outputs import output_path
from contrique_jax.networks.description import read_description
from contrique_jax.networks.encoder import IMAGENET_DEVIATION, IMAGENET_MEAN
from contrique_jax.networks.lite0 import CENTRE, HALF_RANGE
from contrique_jax.networks.model_folder import to_flat
from contrique_jax.training.load import load_network, model_folder


def to_torch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A model as a PyTorch state dict, by the names of the original CONTRIQUE (encoder.4.0.conv1.weight, "
        "projector.0.weight), whose model class loads it with strict=True; or the encoder alone, by torchvision's. An "
        "EfficientNet-Lite0's are timm's (conv_stem.weight, blocks.0.0.conv_dw.weight), behind encoder. beside a projector."
    )
    parser.epilog = "Example: contrique-jax convert to-torch runs/first mine.tar"
    parser.add_argument("model", metavar="M", help="a model folder, a run's workdir or a checkpoint in it")
    parser.add_argument("out", metavar="OUT", help=", ".join(SUFFIXES))
    parser.add_argument(
        "--encoder-only",
        action="store_true",
        help="torchvision's names (conv1.weight, layer1.0.conv1.weight); its resnet with fc = torch.nn.Identity() loads it; "
        "timm's for an EfficientNet-Lite0, which timm loads with num_classes=0",
    )


def to_torch(args: argparse.Namespace) -> None:
    """Raises UserError if there is no such model, or no projector in it and the whole is asked for."""
    out = output_path("OUT", args.out, SUFFIXES)
    model, variables = load_network(args.model)
    if not model.projection_dim and not args.encoder_only:
        raise UserError(f"{args.model}: an encoder without the projector that the original has; add --encoder-only.")
    flat = to_flat(variables)
    folder = model_folder(args.model)
    counts = stored_counts(read_description(folder)) if folder else {}
    flat |= {name: np.asarray(counts.get(name, 0), np.int64) for name in counters(flat)}
    lite = model.encoder == "efficientnet_lite0"
    if args.encoder_only:
        named = {name.removeprefix("encoder."): array for name, array in flat.items() if name.startswith("encoder.")}
    else:
        named = {name if lite else original_name(name): array for name, array in flat.items()}
    write_state_dict(out, named)
    alone = "timm's tf_efficientnet_lite0 without classifier" if lite else f"torchvision's {model.encoder} without fc"
    whose = alone if args.encoder_only else f"CONTRIQUE with a {model.encoder}"
    print(f"{out}: {len(named)} tensors, {whose}; evaluate it with model.eval()")
    if folder is None and not args.model.startswith("random:"):
        print("the optimiser's state and the step stay in the checkpoint: a state dict holds the network alone")
    if model.base_width != 64:
        print(f"its base width is {model.base_width}, where torchvision's networks have 64")
    if model.input_scaling == "imagenet":
        print(f"it expects images in [0, 1] less {list(IMAGENET_MEAN)}, over {list(IMAGENET_DEVIATION)}")
    if model.input_scaling == "centred":
        print(f"it expects bytes v as (v - {CENTRE:g}) / {HALF_RANGE:g}")
    if model.input_scaling != ("centred" if lite else "unit"):  # what from-torch takes it for
        print(f"a state dict does not say so: from-torch needs --input-scaling {model.input_scaling} to read it back")
    if model.features != "pooled":
        print(f"a state dict does not say which features are taken: from-torch needs --features {model.features}")


def stored_counts(description: dict[str, object]) -> dict[str, int]:
    """The batch counters that a converted model came with: torch counts, this program does not."""
    provenance = description.get("provenance")
    counts = provenance.get(COUNTER) if isinstance(provenance, dict) else None
    return {name: count for name, count in counts.items() if type(count) is int} if isinstance(counts, dict) else {}
