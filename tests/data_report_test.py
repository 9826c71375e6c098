"""What is said of the data before training."""

import math

import pytest
from fakes import tiny

from trainer import data_report
from trainer.config import Config
from trainer.data import token_store
from trainer.data.corpus import Corpus
from trainer.data.vocabulary import Tokenizer
from trainer.labels import NEGATIVE_POSITIVE, Classes

SPLITS = ("train", "validation", "test")
THREE = Classes(("low", "mid", "high"), (("1",), ("2",), ("3",)))


def reviews_of(split, count=40, words=30, classes=2):
    """Texts whose words are the same in all splits, in another order."""
    offset = SPLITS.index(split) * 13
    return [
        (
            " ".join(f"w{(offset + number * 7 + at * (number + 3)) % 50}" for at in range(words)),
            number % classes,
        )
        for number in range(count)
    ]


def report(tmp_path, caplog, splits=None, classes=NEGATIVE_POSITIVE, **settings):
    """The warnings and the lines of splits for reviews given as (text, label)."""
    splits = {**{split: reviews_of(split, classes=len(classes)) for split in SPLITS}, **(splits or {})}
    config = Config(
        **tiny(
            tmp_path / "run",
            "",
            **{"train_split": "train", "validation_split": "validation", "test_split": "test", **settings},
        )
    )

    def batches(split):
        import numpy as np

        texts = np.empty(len(splits[split]), object)
        texts[:] = [text.encode() for text, _ in splits[split]]
        yield texts, np.array([label for _, label in splits[split]])

    corpus = Corpus(
        name="listed",
        version="1",
        description="",
        citation="",
        element_spec="",
        split_sizes={split: len(reviews) for split, reviews in splits.items()},
        sources=(),
        sizes=lambda split: [len(splits[split])],
        batches=batches,
        classes=classes,
    )
    tokenizer = Tokenizer(config.tokens, config.strip_html)
    vocabulary, stores = token_store.prepare(
        corpus=corpus,
        splits=list(splits),
        vocab_size=config.vocab_size,
        cache_dir=str(tmp_path / "cache"),
        tokenizer=tokenizer,
    )
    sample = [text.encode() for text, _ in splits["train"]]
    data_report.report(config, classes, vocabulary, stores, sample)
    records = [record for record in caplog.records if record.module == "data_report"]
    return [r.getMessage() for r in records if r.levelname == "WARNING"], [
        r.getMessage() for r in records if r.levelname == "INFO"
    ]


def test_each_split_has_a_line_with_its_classes_and_nothing_is_warned_of(tmp_path, caplog):
    warnings, lines = report(tmp_path, caplog)
    assert warnings == []
    assert lines == [
        f"Split     {split}: 40 reviews (negative: 20, positive: 20), median 30 tokens, 0.0% unknown"
        for split in SPLITS
    ]


def test_a_rare_class_is_warned_of_with_what_a_constant_answer_scores(tmp_path, caplog):
    rare = [(text, int(number == 0)) for number, (text, _) in enumerate(reviews_of("train", count=50))]
    (warning,), _ = report(tmp_path, caplog, {"train": rare})
    assert warning.startswith(
        "Only 2.0% of train are positive: always answering negative has an accuracy of 0.9800"
    )
    assert "--class_weights=balanced and --monitor=val_f1" in warning


def test_twenty_balanced_classes_are_not_rare(tmp_path, caplog):
    twenty = Classes(tuple(f"c{n}" for n in range(20)), tuple((str(n),) for n in range(20)))
    assert report(tmp_path, caplog, classes=twenty)[0] == []


@pytest.mark.parametrize(
    ("split", "remedy"), [("validation", "--held_out_fraction"), ("validation[:50%]", "drawn at random")]
)
def test_a_split_without_a_class_is_warned_of(tmp_path, caplog, split, remedy):
    one = [(text, 0) for text, _ in reviews_of("validation")]
    splits = {"train": reviews_of("train"), split: one, "test": reviews_of("test")}
    (warning,), _ = report(tmp_path, caplog, splits, validation_split=split)
    assert f"{split} has no review of positive" in warning and remedy in warning


def test_texts_that_train_and_validation_share_are_warned_of(tmp_path, caplog):
    (warning,), _ = report(tmp_path, caplog, {"validation": reviews_of("train")})
    assert warning.startswith("40 of the 40 reviews of validation are in train too")


def test_texts_of_one_token_are_offered_characters(tmp_path, caplog):
    chinese = [
        ("这部电影很好看值得再看一遍" if label else "这部电影太差了不要看", label)
        for _, label in reviews_of("train")
    ]
    (warning, *_), _ = report(tmp_path, caplog, {"train": chinese})
    assert (
        warning.startswith("100% of the reviews of train are a single token")
        and "--tokens=characters" in warning
    )
    caplog.clear()
    warnings, _ = report(tmp_path, caplog, {split: chinese for split in SPLITS}, tokens="characters")
    assert not any("single token" in warning for warning in warnings)


def test_many_unknown_tokens_are_warned_of_with_a_larger_vocabulary(tmp_path, caplog):
    (warning,), _ = report(tmp_path, caplog, vocab_size=20)
    assert "of the tokens of validation are unknown" in warning and "--vocab_size=200" in warning
    caplog.clear()
    other = [(f"x{number} " * 20, number % 2) for number in range(40)]
    (warning,), _ = report(tmp_path, caplog, {"validation": other})
    assert "of the same kind as those of train" in warning


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('<p class="review">w1 w2</p>', "--strip_html"),
        ("w1&nbsp;w2", "--strip_html"),
        (r"w1\nw2", "sed 's/\\\\n/ /g' r.csv > r_mended.csv"),
    ],
)
def test_markup_in_the_texts_is_warned_of(tmp_path, caplog, text, word):
    marked = [(f"{text} {plain}", label) for plain, label in reviews_of("train")]
    (warning,), _ = report(tmp_path, caplog, {"train": marked}, vocab_size=1000, dataset="r.csv")
    assert word in warning and "40 of the first 40 reviews" in warning


def test_imdbs_line_breaks_and_a_heart_are_not_markup(tmp_path, caplog):
    plain = [(f"w1.<br /><br />w2 <3 AT&T {text}", label) for text, label in reviews_of("train")]
    assert report(tmp_path, caplog, {"train": plain}, vocab_size=1000)[0] == []


def test_a_constant_answer_has_the_accuracy_of_the_largest_class_if_another_is_rare():
    assert data_report.constant_accuracy([98, 2]) == 0.98
    assert data_report.constant_accuracy([60, 40]) is None
    assert data_report.constant_accuracy([5] * 20) is None


def test_the_loss_of_a_constant_answer_is_the_cross_entropy_of_the_shares():
    assert data_report.constant_loss([500, 500], [3, 1]) == pytest.approx(math.log(2))
    assert data_report.constant_loss([899, 99], [1, 0]) == pytest.approx(-math.log(0.9))
    assert math.isfinite(data_report.constant_loss([10, 0], [0, 1]))


def test_a_class_of_one_or_two_reviews_may_be_a_mistake(tmp_path, caplog):
    reviews = [
        (text, 2 if number == 5 else number % 2)
        for number, (text, _) in enumerate(reviews_of("train", count=60))
    ]
    (warning, *others), _ = report(tmp_path, caplog, {"train": reviews}, classes=THREE)
    assert warning.startswith("Fewer than 3 of the 60 reviews of train are high;")
    assert "--labels='low,mid'" in warning
    assert not any("--class_weights" in other for other in others)


def test_repeated_texts_are_warned_of(tmp_path, caplog):
    same = [("all the same words", number % 2) for number in range(40)]
    warnings, _ = report(tmp_path, caplog, {"train": same})
    assert any(warning.startswith("39 of the first 40 reviews repeat others") for warning in warnings)
