"""Writes those IMDB reviews that state their rating as a csv of three or five classes.

    python scripts/bench/rated_reviews.py --classes=5 --output=rated.csv [--data_dir=FOLDER]

A review such as "... Overall 7/10." gets the label 7, and "7/10" is removed from its text. The ratings are
grouped into classes of about the same size. Reviews that state no rating, or several, are left out; about
3,900 of IMDB's 50,000 remain.
"""

import argparse
import csv
import pathlib
import re
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from trainer.tensorflow_setup import importing_tensorflow

with importing_tensorflow():
    from trainer.data.corpus import open_corpus

_RATING = re.compile(rb"(?<![\d./])(10|[0-9](?:\.5)?)\s?(?:/|out of)\s?10\b(?!/)")
# The highest rating of each class -> its label.
CLASSES = {3: {3.5: "bad", 7.5: "fair", 10: "good"}, 5: {2: "1", 4: "2", 7: "3", 8.5: "4", 10: "5"}}


def label_of(rating: float, classes: int) -> str:
    """The label of a rating from 0 to 10."""
    return next(label for highest, label in CLASSES[classes].items() if rating <= highest)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, choices=tuple(CLASSES), required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--data_dir")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache, arguments.output.open("w", newline="") as file:
        corpus = open_corpus(name="imdb_reviews", data_dir=arguments.data_dir, cache_dir=cache)
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for texts, _ in corpus.reviews("train+test"):
            for text in texts:
                ratings = _RATING.findall(text)
                if len(ratings) == 1:
                    plain = _RATING.sub(b" ", text).decode()
                    writer.writerow([plain, label_of(float(ratings[0]), arguments.classes)])


if __name__ == "__main__":
    main()
