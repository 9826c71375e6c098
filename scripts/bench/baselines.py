"""Accuracy, time and memory of what one would train instead, and of the trainer, on the same IMDB reviews.

    pip install -r scripts/bench/requirements.txt
    python scripts/bench/baselines.py [--sizes=1000,5000,25000] [--seed=0] [--only=nbsvm,ours]

Of each size so many reviews of train are drawn; all contenders learn from the same ones and are tested on the
25,000 of test. Each runs in a process of its own, from texts to predictions; what the trainer needs to
encode the test reviews is in its time. The trainer holds a fifth of its reviews out, where its flags say so.
"""

import argparse
import csv
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

ROOT = pathlib.Path(__file__).parents[2]

Texts = Sequence[str]
Contender = Callable[[Texts, np.ndarray, Texts], np.ndarray]  # training texts, labels, test texts -> labels


def tfidf(ngrams: int, penalty: float) -> Contender:
    """Logistic regression on tf-idf; `penalty` is scikit-learn's C: the smaller, the stronger."""

    def predict(texts: Texts, labels: np.ndarray, test: Texts) -> np.ndarray:
        vectorizer = TfidfVectorizer(ngram_range=(1, ngrams), sublinear_tf=True, min_df=2)
        model = LogisticRegression(C=penalty, max_iter=1000).fit(vectorizer.fit_transform(texts), labels)
        return model.predict(vectorizer.transform(test))

    return predict


def nbsvm(texts: Texts, labels: np.ndarray, test: Texts) -> np.ndarray:
    """Naive Bayes features of words and pairs of words (Wang & Manning 2012) with logistic regression."""
    vectorizer = CountVectorizer(ngram_range=(1, 2), binary=True, token_pattern=r"\S+")
    counts = vectorizer.fit_transform(texts)
    shares = [1.0 + np.asarray(counts[labels == label].sum(axis=0)).ravel() for label in (1, 0)]
    positive, negative = (share / share.sum() for share in shares)
    ratios = np.log(positive / negative)

    def features(counts: csr_matrix) -> csr_matrix:
        return normalize(counts).multiply(ratios).tocsr()

    model = LogisticRegression(C=30.0, max_iter=1000).fit(features(counts), labels)
    return model.predict(features(vectorizer.transform(test)))


LINEAR: dict[str, Contender] = {
    "tf-idf of words": tfidf(1, 3.0),
    "tf-idf of words and pairs": tfidf(2, 10.0),
    "nbsvm": nbsvm,
}
TRAINERS: dict[str, list[str]] = {
    "tutorial": ["--flagfile=trainer/configs/tutorial.flags"],
    "ours": [],
    "imdb_fast": ["--flagfile=trainer/configs/imdb_fast.flags"],
    "imdb_best": ["--flagfile=trainer/configs/imdb_best.flags"],
}
"""Flagfiles that name IMDB's own splits are for all of train; fewer reviews are trained with the defaults."""


def read(path: str) -> tuple[list[str], np.ndarray]:
    """The texts and labels of a csv."""
    with pathlib.Path(path).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], np.array([int(row["label"]) for row in rows])


def run_linear(name: str, train: str, test: str) -> None:
    """Trains and tests one contender, and prints its accuracy; the main program of its process."""
    (texts, labels), (test_texts, expected) = read(train), read(test)
    predicted = LINEAR[name](texts, labels, test_texts)
    print(json.dumps({"accuracy": float(np.mean(predicted == expected))}))


class Usage(NamedTuple):
    """What processes took: seconds, CPU seconds, and the peak memory of the largest in MiB."""

    seconds: float = 0.0
    cpu: float = 0.0
    mib: float = 0.0

    def and_then(self, other: "Usage") -> "Usage":
        """The usage of both, one after the other."""
        return Usage(self.seconds + other.seconds, self.cpu + other.cpu, max(self.mib, other.mib))


def run(command: Sequence[str]) -> tuple[str, Usage]:
    """Runs a command; returns its output and its usage."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}.")
    return output, Usage(time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def run_trainer(flags: Sequence[str], train: str, test: str, seed: int) -> tuple[float, Usage]:
    """Trains and tests in processes of their own; returns the accuracy and the usage."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "trainer.main", f"--workdir={folder}/run", "--verbosity=-1"]
        source = list(flags) or [f"--dataset={train}"]
        _, usage = run([*command, *source, f"--cache_dir={folder}/cache", f"--seed={seed}"])
        result = pathlib.Path(folder, "run", "result.json")
        if flags:
            return json.loads(result.read_text())["test"]["accuracy"], usage
        metrics = pathlib.Path(folder, "metrics.json")
        _, more = run([*command, "--mode=evaluate", f"--input={test}", f"--output={metrics}"])
        return json.loads(metrics.read_text())["accuracy"], usage.and_then(more)


def measure(name: str, train: str, test: str, seed: int) -> tuple[float, Usage]:
    """Accuracy and usage of one contender."""
    if name in TRAINERS:
        return run_trainer(TRAINERS[name], train, test, seed)
    output, usage = run([sys.executable, __file__, f"--linear={name}", f"--train={train}", f"--test={test}"])
    return json.loads(output)["accuracy"], usage


def write_reviews(folder: pathlib.Path, sizes: Sequence[int], seed: int) -> dict[int, str]:
    """Writes a csv for each size, and one of all test reviews as size 0; returns their paths."""
    sys.path.insert(0, str(ROOT))
    from trainer.tensorflow_setup import importing_tensorflow

    with importing_tensorflow():
        from trainer.data.corpus import open_corpus
    corpus = open_corpus(name="imdb_reviews", data_dir=None, cache_dir=str(folder))
    paths = {}
    for size in (0, *sizes):
        rows = [
            (text.decode(), int(label))
            for texts, labels in corpus.reviews("train" if size else "test")
            for text, label in zip(texts, labels, strict=True)
        ]
        if size:
            rows = [rows[row] for row in np.random.default_rng(seed).permutation(len(rows))[:size]]
        paths[size] = str(folder / f"{size}.csv")
        with pathlib.Path(paths[size]).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    return paths


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000,5000,25000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="names of contenders, separated by commas; empty: all")
    for internal in ("--linear", "--train", "--test"):
        parser.add_argument(internal, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.linear:
        run_linear(given.linear, given.train, given.test)
        return
    sizes = [int(size) for size in given.sizes.split(",")]
    only = given.only.split(",") if given.only else [*LINEAR, *TRAINERS]
    print("| reviews | contender | accuracy | seconds | CPU seconds | MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        paths = write_reviews(pathlib.Path(name), sizes, given.seed)
        for size in sizes:
            for contender in only:
                if size != 25_000 and TRAINERS.get(contender):
                    continue
                accuracy, usage = measure(contender, paths[size], paths[0], given.seed)
                figures = f"{accuracy:.4f} | {usage.seconds:.0f} | {usage.cpu:.0f} | {usage.mib:,.0f}"
                print(f"| {size:,} | {contender} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
