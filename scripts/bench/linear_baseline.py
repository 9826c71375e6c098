"""The figures of tf-idf with logistic regression, which a trained model has to beat.

    pip install -r scripts/bench/requirements.txt
    python scripts/bench/linear_baseline.py --dataset=reviews.csv [--ngrams=2]

It reads the corpus as the trainer does, with the same splits. The strength of the penalty is chosen on the
validation split; test is used once.
"""

import argparse
import pathlib
import sys
import tempfile
import time

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from trainer.tensorflow_setup import importing_tensorflow

with importing_tensorflow():
    from trainer.data.corpus import Corpus, open_corpus

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)  # scikit-learn's C: the smaller, the stronger


def read(corpus: Corpus, split: str) -> tuple[list[str], np.ndarray]:
    """All texts of a split and their class numbers."""
    batches = list(corpus.reviews(split))
    texts = [text.decode(errors="replace") for batch, _ in batches for text in batch]
    return texts, np.concatenate([labels for _, labels in batches])


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data_dir")
    parser.add_argument("--train_split", default="train")
    parser.add_argument("--validation_split", default="validation")
    parser.add_argument("--test_split", default="test")
    parser.add_argument("--ngrams", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    splits = [given.train_split, given.validation_split, given.test_split]
    with tempfile.TemporaryDirectory() as cache:
        corpus = open_corpus(
            name=given.dataset,
            data_dir=given.data_dir,
            cache_dir=cache,
            requested_splits=splits,
            seed=given.seed,
        )
        texts, labels = zip(*(read(corpus, split) for split in splits), strict=True)
    started = time.process_time()
    vectorizer = TfidfVectorizer(ngram_range=(1, given.ngrams), sublinear_tf=True, min_df=2)
    features = [vectorizer.fit_transform(texts[0]), *map(vectorizer.transform, texts[1:])]
    models = [
        LogisticRegression(C=penalty, max_iter=1000).fit(features[0], labels[0]) for penalty in PENALTIES
    ]
    model = max(models, key=lambda model: model.score(features[1], labels[1]))
    print(
        f"{features[0].shape[1]:,} features, C = {model.C}, {time.process_time() - started:.0f} CPU seconds"
    )
    for split, of_split, true in zip(splits[1:], features[1:], labels[1:], strict=True):
        predicted = model.predict(of_split)
        macro = f1_score(true, predicted, average="macro")
        print(
            f"{split}: accuracy {np.mean(predicted == true):.4f}, macro F1 {macro:.4f}, {len(true):,} reviews"
        )


if __name__ == "__main__":
    main()
