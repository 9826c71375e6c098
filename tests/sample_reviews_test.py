import hashlib
import re
import statistics
import string
import subprocess
import sys

import pytest
import tensorflow_datasets as tfds

from trainer.data import sample_reviews
from trainer.data.sample_reviews import LONGEST, SHORTEST, SPLITS, SampleReviews, generate_reviews

GOLDEN = {
    "train": "e2792ec8aa432133992c7da790d6b63d62a97522908522c307ff735143ee1b30",
    "validation": "668207e8cd3a67076906038a1703ca0efc5094b3d8d00beb53d2b1b4d22ca143",
    "test": "f848ed4a4e682189187da1ba7f8dc322f18743617d69cc33081e18a9cc413e5b",
}
HASH_A_SPLIT = """
import hashlib
from trainer.data.sample_reviews import generate_reviews
lines = "".join(f"{label} {text}\\n" for text, label in generate_reviews(seed=1, count=1000))
print(hashlib.sha256(lines.encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def corpus():
    return {
        split: list(sample_reviews._reviews_and_truth(seed=seed, count=count))
        for split, (seed, count) in SPLITS.items()
    }


@pytest.fixture(scope="module")
def reviews(corpus):
    return [review for reviews in corpus.values() for review in reviews]


@pytest.fixture(scope="module")
def lengths(reviews):
    return [len(tokens(text)) for text, _, _ in reviews]


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    builder = SampleReviews(data_dir=tmp_path_factory.mktemp("data"))
    builder.download_and_prepare()
    return builder


def tokens(text):
    return text.lower().translate(str.maketrans("", "", string.punctuation)).split()


def share(values):
    return statistics.mean(map(bool, values))


@pytest.mark.parametrize("split", SPLITS)
def test_the_corpus_is_pinned_to_the_byte(corpus, split):
    lines = "".join(f"{label} {text}\n" for text, label, _ in corpus[split])
    assert hashlib.sha256(lines.encode()).hexdigest() == GOLDEN[split], "a changed corpus needs a new VERSION"


@pytest.mark.slow
def test_a_process_with_another_hash_seed_writes_the_same_reviews():
    written = subprocess.run(
        [sys.executable, "-c", HASH_A_SPLIT],
        env={"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert written.stdout.strip() == GOLDEN["validation"]


def test_a_smaller_corpus_is_the_beginning_of_a_larger_one(corpus):
    assert list(generate_reviews(seed=0, count=100)) == [
        (text, label) for text, label, _ in corpus["train"][:100]
    ]


def test_the_splits_do_not_overlap(corpus):
    texts = {split: {text for text, _, _ in reviews} for split, reviews in corpus.items()}
    assert {split: len(reviews) for split, reviews in corpus.items()} == {
        "train": 4000,
        "validation": 1000,
        "test": 1000,
    }
    assert (
        not texts["train"] & (texts["validation"] | texts["test"]) and not texts["validation"] & texts["test"]
    )


def test_most_reviews_are_short_and_a_few_are_very_long(lengths):
    assert min(lengths) == SHORTEST and 550 < max(lengths) <= LONGEST
    assert 20 < statistics.median(lengths) < 35 and 40 < statistics.mean(lengths) < 55


def test_about_one_label_in_25_contradicts_its_text(corpus):
    for reviews in corpus.values():
        assert 0.03 < share(label != sentiment for _, label, sentiment in reviews) < 0.05


def test_the_classes_are_balanced(corpus):
    for reviews in corpus.values():
        assert 0.45 < share(label for _, label, _ in reviews) < 0.55


@pytest.mark.parametrize(
    ("word", "least", "most"),
    [
        ("good", 0.5, 0.8),
        ("terrible", 0.2, 0.5),
        ("not", 0.45, 0.55),
        ("recommend", 0.5, 0.8),
        ("plot", 0.4, 0.6),
    ],
)
def test_no_word_gives_the_sentiment_away(reviews, word, least, most):
    assert least < share(sentiment for text, _, sentiment in reviews if word in tokens(text)) < most


def test_an_inverted_symbol_has_the_opposite_sentiment():
    grammars = sample_reviews._GRAMMARS
    for sentiment, (own, other) in enumerate([grammars, grammars[::-1]]):
        reviews = [
            text
            for text, _, truth in sample_reviews._reviews_and_truth(seed=3, count=1000)
            if truth == sentiment
        ]
        found = [
            adjectives
            for text in reviews
            for adjectives in re.findall(r"[Ii]t was more (\w+) than (\w+)", text)
        ]
        assert found and all(
            first in own["adjective"] and second in other["adjective"] for first, second in found
        )


def test_every_symbol_of_the_grammar_is_defined_and_used():
    for grammar in sample_reviews._GRAMMARS:
        templates = " ".join(template for templates in grammar.values() for template in templates)
        assert set(re.findall(r"{!?(\w+)}", templates)) | {"sentence"} == set(grammar)
        assert not re.search(r"[{}]", re.sub(r"{!?\w+}", "", templates)) and all(
            all(templates) for templates in grammar.values()
        )


def test_generated_texts_look_like_reviews(reviews):
    written = " ".join(text for text, _, _ in reviews)
    assert written.isascii() and not re.search(r"[{}|]|  |\b[Aa] [aeiou]| [a-z]+ \.", written)
    assert all(re.match(r'["A-Z]', text) and re.search(r"([.!?]|<br />)$", text) for text, _, _ in reviews)
    assert all(
        feature in written
        for feature in ("wasn't", "<br /><br />", "!", "?", "(", "out of this world", "recommend this movie")
    )


def test_the_builder_serves_the_generated_reviews_in_order(builder, corpus):
    for split, (_, count) in SPLITS.items():
        served = [
            (example["text"].decode(), int(example["label"]))
            for example in tfds.as_numpy(builder.as_dataset(split=split))
        ]
        assert served == [(text, label) for text, label, _ in corpus[split]] and len(served) == count


def test_the_description_of_the_builder_calls_it_synthetic(builder):
    assert builder.info.description.startswith("Synthetic") and "4%" in builder.info.description
    assert builder.name == "sample_reviews" and builder.info.features["label"].names == ["neg", "pos"]
