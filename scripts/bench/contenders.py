"""Runs one contender of the benchmarks, controlled by the orders that `turns` describes.

usual   The script that most users write: TextVectorization as the first layer, random batches of strings,
        Keras `fit`.
fair    Keras `fit` on this trainer's encoded, sorted batches, with a mask.
ours    This trainer: its flags, its loop, its logs and saves.
usual_until_target
        The usual script alone, without orders, until it has reached the target.
"""

import argparse
import pathlib
import resource
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from local_cluster import ROOT

sys.path.insert(0, str(ROOT))
from turns import Turns

NAMES = ("usual", "fair", "ours", "usual_until_target")


def main() -> None:
    """Imports only what the contender needs: "usual" must not get this trainer's environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--cache_dir", help="where the encoded reviews are")
    parser.add_argument("--folder", type=pathlib.Path, help="an empty folder for the run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("flags", nargs="*", help='more flags of the trainer, for "ours"')
    given = parser.parse_args()
    if given.name == "ours":
        from our_contender import ours

        turns = Turns()
        ours(turns, cache_dir=given.cache_dir, folder=given.folder, flags=given.flags)
    else:
        import keras_contenders

        if given.name == "usual_until_target":
            keras_contenders.usual_until_target(given.seed)
            return
        turns = Turns()
        if given.name == "usual":
            keras_contenders.usual(turns)
        else:
            keras_contenders.fair(turns, cache_dir=given.cache_dir)
    turns.answer(peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
