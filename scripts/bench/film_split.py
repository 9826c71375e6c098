"""Writes IMDB as train, validation and test, with a validation that shares few films with train.

    pip install -r scripts/bench/requirements.txt
    python scripts/bench/film_split.py --output=FOLDER [--reviews=4000] [--seed=0]
    python -m trainer.main --dataset=FOLDER --workdir=runs/chosen ...

Nothing in IMDB says which film a review is of. Reviews that share two rare names, pairs of capitalised words
that at most 30 reviews of train have, are taken to be of one film, and so are reviews that are linked through
others. Whole groups are drawn for validation. How good this guess is, the script tells: train and test share
no film, so that links between the two are errors.
"""

import argparse
import collections
import csv
import itertools
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from trainer.tensorflow_setup import importing_tensorflow

with importing_tensorflow():
    from trainer.data.corpus import open_corpus

_NAME = re.compile(rb"\b[A-Z][a-z]+(?: [A-Z][a-z]+)+\b")
MOST_REVIEWS = 30  # that a rare name is in
MOST_SHARE = 0.1  # of the reviews drawn; a larger group is of a prolific actor, and stays in train


def names_of(text: bytes) -> set[bytes]:
    """The pairs of capitalised words of a review."""
    found = (match.split() for match in _NAME.findall(text.replace(b"<br />", b" . ")))
    return {b" ".join(pair) for words in found for pair in itertools.pairwise(words)}


def links(texts: Sequence[bytes], most_reviews: int) -> np.ndarray:
    """The pairs of reviews that share two rare names; int [links, 2]."""
    having = collections.defaultdict(list)
    for number, text in enumerate(texts):
        for name in names_of(text):
            having[name].append(number)
    shared: collections.Counter[tuple[int, int]] = collections.Counter()
    for reviews in having.values():
        if len(reviews) <= most_reviews:
            shared.update(itertools.combinations(reviews, 2))
    return np.array([pair for pair, names in shared.items() if names >= 2])


def groups_of(pairs: np.ndarray, reviews: int) -> np.ndarray:
    """The number of the group of each review."""
    graph = csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(reviews, reviews))
    return connected_components(graph, directed=False)[1]


def drawn(groups: np.ndarray, reviews: int, seed: int) -> np.ndarray:
    """Whether a review is in one of the groups that are drawn, together at least `reviews`; bool."""
    sizes = np.bincount(groups)
    order = np.random.RandomState(seed).permutation(len(sizes))
    small = [group for group in order if sizes[group] <= MOST_SHARE * reviews]
    count = int(np.searchsorted(np.cumsum(sizes[small]), reviews)) + 1
    return np.isin(groups, small[:count])


def write(path: pathlib.Path, rows: Iterable[tuple[bytes, int]]) -> None:
    """Writes a csv of texts and labels."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("text", "label"), *((text.decode(), ("neg", "pos")[label]) for text, label in rows)]
        )


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--reviews", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        corpus = open_corpus(name="imdb_reviews", data_dir=None, cache_dir=cache)
        train, test = (
            [
                (text, int(label))
                for texts, labels in corpus.reviews(split)
                for text, label in zip(texts, labels, strict=True)
            ]
            for split in ("train", "test")
        )
    pairs = links([text for text, _ in train + test], 2 * MOST_REVIEWS)
    crossing = np.mean((pairs[:, 0] < len(train)) != (pairs[:, 1] < len(train)))
    print(f"Of the links in train and test together {crossing:.0%} cross; by chance it would be 50%.")
    held_out = drawn(
        groups_of(links([text for text, _ in train], MOST_REVIEWS), len(train)), given.reviews, given.seed
    )
    given.output.mkdir(parents=True)
    write(given.output / "train.csv", itertools.compress(train, ~held_out))
    write(given.output / "validation.csv", itertools.compress(train, held_out))
    write(given.output / "test.csv", test)
    print(f"{np.sum(~held_out):,} reviews to train, {np.sum(held_out):,} to validate, {len(test):,} to test.")


if __name__ == "__main__":
    main()
