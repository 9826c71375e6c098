"""The accuracy of a bag of words on `sample_reviews`, which a model that respects word order has to beat.

    python scripts/bench/bag_of_words.py [--data_dir=FOLDER]

Logistic regression on the 1,000 tokens that the BiLSTM sees, once on the count of each token and once on its
presence, fitted to convergence. The strength of the L2 penalty is chosen on the validation split.
"""

import argparse
import pathlib
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from trainer.tensorflow_setup import importing_tensorflow

with importing_tensorflow():
    from trainer.data.corpus import open_corpus
from trainer.data.token_store import TokenStore, prepare

VOCAB_SIZE = 1000
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def count_tokens(store: TokenStore) -> np.ndarray:
    """How often each token occurs in each review, [examples, VOCAB_SIZE] float64.

    Column 0 is padding in a model; here it is always 1, the bias.
    """
    rows = np.repeat(np.arange(len(store)), store.lengths[:])
    cells = rows * VOCAB_SIZE + store.token_ids[:]
    counts = np.bincount(cells, minlength=len(store) * VOCAB_SIZE).reshape(-1, VOCAB_SIZE)
    counts[:, 0] = 1
    return counts.astype(np.float64)


def fit(features: np.ndarray, labels: np.ndarray, penalty: float) -> np.ndarray:
    """Minimises mean cross-entropy + penalty / 2 * |weights|^2 by Newton's method.

    Args:
      features: [examples, VOCAB_SIZE] float64.
      labels: [examples], 0 or 1.
      penalty: the strength of the L2 penalty.

    Returns:
      The weights, [VOCAB_SIZE] float64.

    Raises:
      ArithmeticError: when it does not converge.
    """
    weights = np.zeros(VOCAB_SIZE)
    for _ in range(100):
        probabilities = 1 / (1 + np.exp(-features @ weights))
        gradient = features.T @ (probabilities - labels) / len(labels) + penalty * weights
        if np.abs(gradient).max() < 1e-9:
            return weights
        curvatures = probabilities * (1 - probabilities)
        hessian = (features.T * curvatures) @ features / len(labels) + penalty * np.eye(VOCAB_SIZE)
        weights -= np.linalg.solve(hessian, gradient)
    raise ArithmeticError(f"Newton's method did not converge at penalty {penalty}.")


def accuracy(weights: np.ndarray, features: np.ndarray, labels: np.ndarray) -> float:
    """The share of reviews, 0 to 1, that are classified correctly."""
    return float(np.mean((features @ weights > 0) == labels))


def compare(data_dir: str) -> None:
    """Prints a line for each kind of feature; prepares the corpus in `data_dir` if it is not there."""
    corpus = open_corpus(name="sample_reviews", data_dir=None, cache_dir=data_dir)
    splits = ("train", "validation", "test")
    _, stores = prepare(corpus=corpus, splits=splits, vocab_size=VOCAB_SIZE, cache_dir=data_dir)
    counts = {split: count_tokens(stores[split]) for split in splits}
    presence = {split: np.minimum(counts[split], 1) for split in splits}
    labels = {split: np.asarray(stores[split].labels) for split in splits}
    for name, features in (("counts", counts), ("presence", presence)):
        candidates = [fit(features["train"], labels["train"], penalty) for penalty in PENALTIES]
        validation = features["validation"], labels["validation"]
        best = max(candidates, key=lambda weights: accuracy(weights, *validation))
        scores = [f"{split} {accuracy(best, features[split], labels[split]):.3f}" for split in splits]
        print(f"{name:10} accuracy: {', '.join(scores)}")


def main() -> None:
    """Compares the features on the corpus that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", help="where the corpus is or will be prepared; default: temporary")
    data_dir = parser.parse_args().data_dir
    with tempfile.TemporaryDirectory() as temporary:
        compare(data_dir or temporary)


if __name__ == "__main__":
    main()
