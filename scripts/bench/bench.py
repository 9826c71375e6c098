"""Compares this trainer with Keras `fit` on IMDB, on this machine.

    TFDS_DATA_DIR=... python scripts/bench/bench.py [--json=FILE] [--rounds=6]
    TFDS_DATA_DIR=... python scripts/bench/bench.py --full [--seeds=3]  # whole trainings, to the same quality
    TFDS_DATA_DIR=... python scripts/bench/bench.py --saves=100         # a save alone, and TensorFlow's own

Takes some three minutes on 2 cores; with --full, hours. Three processes take turns, so that a machine that
slows down slows all of them; a process that waits computes nothing.

usual   The script that most users write: TextVectorization as the first layer, random batches of strings,
        Keras `fit`.
fair    Keras `fit` on this trainer's encoded, sorted batches, with a mask.
ours    This trainer: its flags, its loop, its logs and saves.

A step is timed from its start to the start of the next. An epoch of "usual" and "fair" is extrapolated from
at least 50 steps; that of "ours" is measured whole. So are evaluations, after a first one that compiles.
"""

import argparse
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from local_cluster import ROOT

sys.path.insert(0, str(ROOT))
from timing import exit_on_sigterm


def main() -> int:
    """Runs the benchmark that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--json", type=pathlib.Path, help="file for the figures; --full continues from what it holds"
    )
    parser.add_argument("--rounds", type=int, default=6, help="turns of each contender")
    parser.add_argument("--full", action="store_true", help="compare whole trainings")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind, with --full")
    parser.add_argument("--saves", type=int, metavar="N", help="compare N saves with TensorFlow's own")
    given = parser.parse_args()
    exit_on_sigterm()
    if given.saves:
        from bench_saves import compare_saves

        compare_saves(given.saves)
        return 0
    if given.full:
        from bench_trainings import compare_trainings

        figures = compare_trainings(given.seeds, given.json)
    else:
        from bench_steps import compare_steps

        figures = compare_steps(given.rounds)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
