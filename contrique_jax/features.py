"""The command `contrique-jax features`: two-scale features of images -> F.npz."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from contrique_jax import __version__
from contrique_jax.data.listed import find_listed
from contrique_jax.errors import Parser, SomeUnread, counted, run_verb
from contrique_jax.inference.any_recipe import open_extractor
from contrique_jax.inference.file_features import gather, name_broken
from contrique_jax.inference.flags import add_model_flags
from contrique_jax.inference.kept import kept_features
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.io.outputs import output_path, write_npz
from contrique_jax.io.parts import Parts


def main(argv: Sequence[str]) -> None:
    """The command `contrique-jax features`."""
    parser = Parser(
        prog="contrique-jax features",
        description="Two-scale features of images -> F.npz with path [N], features float32 [N, D] and model_hash.",
        epilog="Example: contrique-jax features --model runs/first --images ~/photos 'more/*.png' --out features.npz",
    )
    add_model_flags(parser)
    parser.add_argument(
        "--images",
        required=True,
        nargs="+",
        metavar="PATH",
        help="files, folders (recursive), globs; a csv with a column path, a .txt of paths, or - for such a list on stdin",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="F.npz",
        help="what is interrupted keeps its results in F.npz.partial, and the same command goes on from them",
    )
    flags = parser.parse_args(argv)
    out = output_path("--out", flags.out, (".npz",))
    listing = find_listed(flags.images)
    paths = listing.files
    use_compilation_cache()
    extractor = open_extractor(flags.model, max_megapixels=flags.max_megapixels, memory=flags.memory)
    about = {
        "command": "features", "version": __version__, "model": extractor.model_hash,
        "--max-megapixels": extractor.max_megapixels,
    }  # fmt: skip
    with Parts(out, about) as parts:
        found = kept_features(parts, paths, extractor.stream)
        kept, features, broken = gather(extractor, found, len(paths))
        name_broken(broken, len(paths))
        names = np.array([str(path) for path in kept])
        write_npz(out, path=names, features=features, model_hash=np.array(extractor.model_hash))
    print(f"{out}: {counted(len(kept), 'image')}, {extractor.width} features each, model {extractor.model_hash}")
    listing.left_out.say()
    if len(kept) < len(paths) and listing.named.difference(kept):
        raise SomeUnread


if __name__ == "__main__":
    sys.exit(run_verb(main))
