"""Corpora from the user's own files."""

import csv
import json
import os
import pathlib
import re
import shutil

import pytest
from compare_runs import outcome, tensors
from fakes import NoStopRequests, command, tiny
from processes import run as run_forked
from reference_runs import SELDOM, train_until_killed

from trainer import train
from trainer.data import corpus as corpora
from trainer.data.corpus import open_corpus
from trainer.data.own_rows import OwnRows
from trainer.data.tables import Options
from trainer.errors import InputError
from trainer.labels import NEGATIVE_POSITIVE

REVIEWS = [
    (
        f'Review {number} of {1000 - number}, it said:\n"{"good" if number % 3 else "bad"}"',
        int(number % 3 > 0),
    )
    for number in range(100)
]


def write(path, reviews, kind=None):
    """Writes reviews as a file of `kind`, by default its suffix; without a suffix, as a folder of texts."""
    kind = kind or path.suffix[1:]
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in reviews))
    elif kind:
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if kind == "tsv" else ",").writerows(
                [("text", "label"), *reviews]
            )
    else:
        for name in ("neg", "pos"):
            (path / name).mkdir(parents=True)
        for number, (text, label) in enumerate(reviews):
            (path / ("neg", "pos")[label] / f"{number}.txt").write_bytes(text.encode())
    return path


def name_of(path):
    return f"{path.suffix[1:] or 'folder'}:{path}"


def open_own(name, tmp_path, requested_splits=("train[:50%]",), **kwargs):
    return open_corpus(
        name=str(name),
        data_dir=kwargs.pop("data_dir", None),
        cache_dir=str(tmp_path / "cache"),
        requested_splits=requested_splits,
        **kwargs,
    )


def read(corpus, split):
    return [
        (text.decode(), int(label))
        for texts, labels in corpus.reviews(split)
        for text, label in zip(texts, labels, strict=True)
    ]


NAMES = ("a.csv", "a.tsv", "a.jsonl", "a")


@pytest.mark.parametrize("name", NAMES)
def test_reviews_are_read_in_the_order_of_the_file(tmp_path, name):
    corpus = open_own(name_of(write(tmp_path / name, REVIEWS)), tmp_path)
    assert corpus.split_sizes == {"train": 100}
    assert read(corpus, "train") == REVIEWS


@pytest.mark.parametrize("split", ["train[:7]", "train[90%:]", "train[10:20]+train[:5]", "train[-3:]", "all"])
def test_a_slice_of_a_split_is_written_as_in_tfds(tmp_path, split, monkeypatch):
    monkeypatch.setattr(corpora, "READ_BATCH", 8)
    corpus = open_own(name_of(write(tmp_path / "a.csv", REVIEWS)), tmp_path)
    parts = {
        "train[:7]": REVIEWS[:7],
        "train[90%:]": REVIEWS[90:],
        "train[-3:]": REVIEWS[-3:],
        "all": REVIEWS,
    }
    expected = parts.get(split, REVIEWS[10:20] + REVIEWS[:5])
    assert read(corpus, split) == expected
    assert corpus.examples(split) == len(expected)


@pytest.mark.parametrize("split", ["test", "", "train[", "train[:0]", "train[101:]", "train[x:]"])
def test_an_empty_or_unknown_split_is_refused_with_the_available_splits(tmp_path, split):
    corpus = open_own(name_of(write(tmp_path / "a.csv", REVIEWS)), tmp_path)
    with pytest.raises(InputError, match="its splits are train,"):
        corpus.examples(split)


DEFAULT = ("train", "validation", "test")


@pytest.mark.parametrize("name", NAMES)
def test_without_split_files_the_seed_assigns_each_review_to_one_split(tmp_path, name, monkeypatch):
    monkeypatch.setattr(corpora, "READ_BATCH", 8)
    path = write(tmp_path / name, REVIEWS)
    corpus = open_own(name_of(path), tmp_path, DEFAULT, held_out_fraction=0.2)
    assert corpus.split_sizes == {"train": 60, "validation": 20, "test": 20}
    parts = {split: read(corpus, split) for split in DEFAULT}
    assert sorted(review for part in parts.values() for review in part) == sorted(REVIEWS)
    for part in parts.values():
        assert part == [review for review in REVIEWS if review in part], "each in the order of the file"
    assert parts["test"] != REVIEWS[-20:]
    assert read(open_own(name_of(path), tmp_path, DEFAULT, held_out_fraction=0.2), "test") == parts["test"]
    other = open_own(name_of(path), tmp_path, DEFAULT, held_out_fraction=0.2, seed=1)
    assert read(other, "test") != parts["test"]
    assert other.version != corpus.version


def test_only_requested_splits_are_drawn(tmp_path):
    name = name_of(write(tmp_path / "a.csv", REVIEWS))
    assert open_own(name, tmp_path, ("train", "validation")).split_sizes == {"train": 90, "validation": 10}
    assert open_own(name, tmp_path, ("train",)).split_sizes == {"train": 100}


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "folder"])
def test_a_folder_may_hold_one_file_or_folder_per_split(tmp_path, kind):
    suffix = "" if kind == "folder" else f".{kind}"
    (tmp_path / "all").mkdir()
    write(tmp_path / "all" / f"train{suffix}", REVIEWS[:60])
    write(tmp_path / "all" / f"test{suffix}", REVIEWS[60:])
    (tmp_path / "all" / "unsup").mkdir()
    (tmp_path / "all" / "README").write_text("Not a split.")
    corpus = open_own(f"{kind}:{tmp_path / 'all'}", tmp_path, DEFAULT)
    assert corpus.split_sizes == {"train": 54, "validation": 6, "test": 40}
    assert read(corpus, "test") == REVIEWS[60:]
    held_out = read(corpus, "validation")
    assert read(corpus, "train") == [review for review in REVIEWS[:60] if review not in held_out]
    assert open_own(f"{kind}:{tmp_path / 'all'}", tmp_path, ("train[:50]", "test")).split_sizes == {
        "test": 40,
        "train": 60,
    }


def test_unlabelled_reviews_of_the_imdb_archive_are_not_read_which_is_said(tmp_path, caplog):
    for split in ("train", "test"):
        write(tmp_path / "aclImdb" / split, REVIEWS[:60])
        (tmp_path / "aclImdb" / split / "urls_pos.txt").write_text("http://example.org")
    (tmp_path / "aclImdb" / "train" / "unsup").mkdir()
    (tmp_path / "aclImdb" / "train" / "unsup" / "0.txt").write_text("?")
    (tmp_path / "aclImdb" / "imdb.vocab").write_text("the")
    corpus = open_own(tmp_path / "aclImdb", tmp_path, DEFAULT)
    assert corpus.split_sizes == {"train": 54, "validation": 6, "test": 60}
    assert corpus.classes == NEGATIVE_POSITIVE
    assert f"{tmp_path / 'aclImdb' / 'train' / 'unsup'} is not read" in caplog.text


def test_a_relative_path_is_relative_to_data_dir(tmp_path):
    write(tmp_path / "a.csv", REVIEWS)
    write(tmp_path / "b", REVIEWS)
    assert open_own("csv:a.csv", tmp_path, data_dir=str(tmp_path)).split_sizes == {"train": 100}
    assert open_own("b", tmp_path, data_dir=str(tmp_path)).split_sizes == {"train": 100}


def test_the_reviews_of_a_file_are_counted_only_once_until_it_changes(tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv", REVIEWS)
    first = open_own(name_of(path), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(OwnRows, "read", None)
        assert open_own(name_of(path), tmp_path).split_sizes == {"train": 100}
        assert open_own(name_of(path), tmp_path).version == first.version
    write(path, REVIEWS[:50])
    changed = open_own(name_of(path), tmp_path)
    assert changed.split_sizes == {"train": 50}
    assert changed.version != first.version


def test_moving_a_review_to_the_other_class_changes_the_version(tmp_path):
    write(tmp_path / "a", REVIEWS)
    before = open_own(tmp_path / "a", tmp_path).version
    (tmp_path / "a" / "neg" / "0.txt").rename(tmp_path / "a" / "pos" / "0.txt")
    assert open_own(tmp_path / "a", tmp_path).version != before


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_changes_while_it_is_read_is_detected(tmp_path, name):
    path = write(tmp_path / name, REVIEWS)
    corpus = open_own(name_of(path), tmp_path)
    changed = path / "pos" / "1.txt" if path.is_dir() else path
    os.utime(changed, (1, 1))
    with pytest.raises(InputError, match="changed"):
        read(corpus, "train")


@pytest.mark.parametrize("count", [50, 99, 101, 5000])
def test_a_file_that_shrinks_or_grows_while_splits_are_drawn_is_detected(tmp_path, count):
    path = write(tmp_path / "a.csv", REVIEWS)
    corpus = open_own(name_of(path), tmp_path, DEFAULT)
    write(path, (REVIEWS * 50)[:count])
    with pytest.raises(InputError, match="changed"):
        read(corpus, "train")


def test_held_out_fraction_is_exact_to_the_review(tmp_path):
    corpus = open_own(
        name_of(write(tmp_path / "a.csv", REVIEWS)), tmp_path, ("train", "validation"), held_out_fraction=0.29
    )
    assert corpus.split_sizes == {"train": 71, "validation": 29}
    eighth = open_own(name_of(tmp_path / "a.csv"), tmp_path, ("train", "validation"), held_out_fraction=0.125)
    assert "12.5% are drawn by --seed for each of validation" in eighth.description


def test_a_file_without_splits_is_described_as_all_train(tmp_path):
    assert (
        "all of it the split train"
        in open_own(name_of(write(tmp_path / "a.csv", REVIEWS)), tmp_path).description
    )


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", '"text",label\ngood,1\n'), ("a.jsonl", '{"text": "good", "label": 1}\n')]
)
def test_a_byte_order_mark_is_skipped(tmp_path, name, content):
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert read(open_own(name_of(tmp_path / name), tmp_path), "train") == [("good", 1)]


def test_blank_lines_of_a_csv_are_skipped_but_count_as_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n\ngood,1\n\n\nbad,0\n\n")
    assert read(open_own(name_of(path), tmp_path), "train") == [("good", 1), ("bad", 0)]
    path.write_text("text,label\n\ngood,1\n\n\nbad,\n")
    with pytest.raises(InputError, match="line 6 of"):
        open_own(name_of(path), tmp_path)


def test_the_columns_can_be_chosen_by_name(tmp_path):
    (tmp_path / "a.csv").write_text("id,Review,Stars\n1,good,1\n2,bad,0\n")
    options = Options(text_column="review", label_column="stars")
    corpus = open_own(name_of(tmp_path / "a.csv"), tmp_path, options=options)
    assert read(corpus, "train") == [("good", 1), ("bad", 0)]


@pytest.mark.parametrize("label", ["0", "neg", "Negative", "FALSE", " 0 ", "0.0", False, 0, 0.0])
def test_a_label_may_be_written_in_several_ways(tmp_path, label):
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": "x", "label": value}) + "\n" for value in (label, "positive"))
    )
    assert [value for _, value in read(open_own(name_of(tmp_path / "a.jsonl"), tmp_path), "train")] == [0, 1]


def test_a_path_may_contain_spaces_colons_and_non_ascii_letters(tmp_path):
    path = write(tmp_path / "meine: Kritiken, Ünïcödé 影評.csv", REVIEWS)
    assert open_own(name_of(path), tmp_path).split_sizes == {"train": 100}


BAD = {
    "a label is missing": (
        "a.csv",
        "text,label\ngood,1\nbad,\n",
        "1 where it has no label .*line 3 of a.csv",
    ),
    "a text is empty": ("a.csv", "text,label\ngood,1\n,0\n", "1 where its text is empty .*line 3 of a.csv"),
    "a cell is missing": ("a.csv", "text,label\ngood,1\nbad\n", "line 3 of a.csv"),
    "JSON is cut short": (
        "a.jsonl",
        '{"text": "good", "label": 1}\n{"text": "ba',
        "line 2 of a.jsonl.*not JSON",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_row_is_refused_with_its_line_and_following_the_remedy_works(tmp_path, what):
    name, content, words = BAD[what]
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=f"1 of 2 rows of .*{words}") as error:
        open_own(tmp_path / name, tmp_path)
    assert str(tmp_path / name) in str(error.value) and str(error.value).isprintable()
    (remedy,) = re.findall(r"--bad_rows=(\w+)", str(error.value))
    corpus = open_own(tmp_path / name, tmp_path, bad_rows=remedy)
    assert read(corpus, "train") == [("good", 1)] and sum(corpus.skipped.values()) == 1


def test_all_bad_rows_are_counted_by_kind_with_the_first_of_each(tmp_path, caplog):
    rows = [*REVIEWS[:20], ("", 1), ("x", ""), *REVIEWS[20:40], ("", 0), ("", 1)]
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(
        InputError,
        match=r"4 of 44 rows .*: 3 where its text is empty \(first in line 21 .*, 1 where it has no label "
        r"\(first in line 22 of a\.jsonl.*--bad_rows=skip",
    ):
        open_own(path, tmp_path)
    corpus = open_own(path, tmp_path, bad_rows="skip")
    assert read(corpus, "train") == REVIEWS[:40]
    assert corpus.skipped == {"its text is empty": 3, "it has no label": 1}
    assert "4 of 44 rows, which are invalid" in caplog.text
    assert sum(corpus.split_sizes.values()) + sum(corpus.skipped.values()) == len(rows)


def test_skipping_bad_rows_is_part_of_the_version_and_stopping_is_not(tmp_path):
    path = write(tmp_path / "a.csv", REVIEWS)
    versions = [open_own(path, tmp_path, bad_rows=bad_rows).version for bad_rows in ("", "stop", "skip")]
    assert versions[0] == versions[1] != versions[2]


def test_labels_merge_and_leave_out_reviews_and_how_many_is_said(tmp_path, caplog):
    rows = [(f"review {number}", 1 + number % 5) for number in range(100)]
    path = write(tmp_path / "a.csv", rows)
    corpus = open_own(path, tmp_path, DEFAULT, labels="negative=1,2;positive=4,5")
    assert corpus.classes.names == ("negative", "positive")
    assert corpus.left_out == {"3": 20} and "20 of 100 rows" in caplog.text and "3 (20)" in caplog.text
    assert corpus.split_sizes == {"train": 64, "validation": 8, "test": 8}
    expected = sorted((text, int(stars > 3)) for text, stars in rows if stars != 3)
    assert sorted(review for split in DEFAULT for review in read(corpus, split)) == expected
    assert corpus.version != open_own(path, tmp_path, DEFAULT).version


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("no", "yes"), ("no", "yes")),
        ((10, 9, 2), ("2", "9", "10")),
        (("Spam", "ham", "spam", "spam"), ("ham", "spam")),
        (("T", "F"), ("F", "T")),
    ],
)
def test_each_label_is_a_class(tmp_path, labels, classes):
    rows = [(f"review {number}", label) for number, label in enumerate(labels * 3)]
    corpus = open_own(write(tmp_path / "a.csv", rows), tmp_path)
    assert corpus.classes.names == classes and f"one of {', '.join(classes)}" in corpus.element_spec
    expected = [(text, [name.lower() for name in classes].index(str(label).lower())) for text, label in rows]
    assert read(corpus, "train") == expected


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,label\ngood,2\nfine,2\n", "two classes or more, but all reviews have the label 2"),
        ("a.jsonl", "", "a.jsonl"),
        ("a.csv", "text,label\n", "a.csv"),
        ("a.csv", b"text,label\ngood,1\nna\xefve,0\n", "--encoding="),
        ("a.csv", "text,label\n" + "".join(f"a{n},b{n}\n" for n in range(10_020)), "at most 256"),
    ],
)
def test_a_file_without_classes_or_reviews_is_refused_in_one_sentence(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=words) as error:
        open_own(tmp_path / name, tmp_path)
    assert str(error.value).isprintable()


def test_a_label_that_a_further_split_alone_has_is_refused(tmp_path):
    write(tmp_path / "train.csv", [("a", 1), ("b", 2)])
    write(tmp_path / "extra.csv", [("a", 1), ("b", 3)])
    with pytest.raises(InputError, match=r"must be 1, 2, .*extra has 3 \(1\)"):
        open_own(tmp_path, tmp_path, ("train",), evaluated_split="extra")
    write(tmp_path / "extra.csv", [("a", 1), ("b", 2), ("c", 2)])
    corpus = open_own(tmp_path, tmp_path, ("train",), evaluated_split="extra[:2]")
    assert read(corpus, "extra[1:]") == [("b", 1), ("c", 1)]


UNLABELLED = {
    "no column": ("test.tsv", "index\ttext\n0\tgood\n"),
    "empty labels": ("test.csv", "text,label\ngood,\nbad,\n"),
    "-1": ("test.csv", "text,label\ngood,-1\nbad,-1\n"),
}


@pytest.mark.parametrize("what", UNLABELLED)
def test_an_unlabelled_test_file_is_named_only_if_it_is_asked_for_and_the_remedy_works(tmp_path, what):
    write(tmp_path / "train.csv", REVIEWS)
    name, content = UNLABELLED[what]
    (tmp_path / name).write_text(content)
    (tmp_path / "sample_submission.csv").write_text("id,answer\n1,0\n")
    (tmp_path / "train (1).csv").write_text("broken")
    with pytest.raises(InputError, match=r"give --test_split= ") as error:
        open_own(tmp_path, tmp_path, DEFAULT)
    assert "\n" not in str(error.value)
    corpus = open_own(tmp_path, tmp_path, ("train", "validation"))
    assert corpus.split_sizes == {"train": 90, "validation": 10}


def test_two_class_labels_of_older_versions_keep_their_identity(tmp_path):
    """The expected values are those of version c826cf6."""

    def make(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        os.utime(path, (1e9, 1e9))

    rows = [(f"Review {i} is {'good' if i % 3 else 'bad'}", "pos" if i % 3 else "neg") for i in range(100)]
    make(tmp_path / "a.csv", "".join(f"{text},{label}\n" for text, label in [("text", "label"), *rows]))
    for number, (text, label) in enumerate(rows[:60]):
        make(tmp_path / "f" / label / f"{number}.txt", text)
    sliced = ("train[:90%]", "train[90%:]", "train[:20]")
    for name, requested, version, kwargs in (
        ("csv:a.csv", DEFAULT, "9229b45f5476", {}),
        ("csv:a.csv", sliced, "57f6efdb7990", {}),
        (
            "csv:a.csv",
            ("train", "validation", "validation"),
            "4b0b08a105f8",
            {"seed": 3, "held_out_fraction": 0.29},
        ),
        ("folder:f", DEFAULT, "05ba79f32bf8", {}),
        ("f", ("train[:50%]", "train[50%:]"), "bbf6261f32e5", {}),
    ):
        corpus = open_own(name, tmp_path, requested, data_dir=str(tmp_path), **kwargs)
        assert (corpus.version, corpus.classes) == (version, NEGATIVE_POSITIVE)
    drawn = open_own("csv:a.csv", tmp_path, DEFAULT, data_dir=str(tmp_path))
    numbers = [int(text.split()[1]) for text, _ in read(drawn, "test")]
    assert numbers == [1, 46, 47, 51, 67, 73, 74, 77, 81, 90]


def make_tree(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes({"latin.txt": b"na\xefve", "empty.txt": b" \n"}.get(path.name, b"good"))


INVALID_PATHS = {
    "a missing file": ((), "csv:a.csv", "a.csv does not"),
    "a missing folder": ((), "folder:a", "a does not"),
    "no path": ((), "csv:", "a path after csv:"),
    "a folder in place of a file": (("a/",), "csv:a", r"a \.csv for each split"),
    "an empty folder": (("a/",), "./a", "a file of reviews for each split, .*a holds neither"),
    "a file in place of a folder": (("a.csv",), "folder:a.csv", "must name a folder"),
    "a folder without classes": (("a/x.txt",), "folder:a", "a folder of .txt for each class"),
    "only one class": (("a/pos/1.txt",), "folder:a", "for each class, .*a holds only pos/"),
    "a folder of one class": (("a/spam/1.txt",), "a", "for each class, .*a holds only spam/"),
    "no split that is named": (("a/x.csv", "a/y.csv"), "csv:a", r"no train .*--train_split=x"),
    "two files of a split": (("a/train.csv", "a/train.jsonl"), "./a", r"train\.csv and train\.jsonl .*csv:"),
    "a path that is too long": ((), f"csv:{'x' * 300}", "File name too long"),
    "a path of a folder that is too long": ((), f"folder:{'x' * 300}", "File name too long"),
    "an empty class": (("a/pos/1.txt", "a/neg/"), "folder:a", "holds only pos/"),
    "no texts": (("a/pos/1.md", "a/neg/1.md"), "folder:a", r"holds no \.txt"),
    "a text that is not UTF-8": (("a/pos/1.txt", "a/neg/latin.txt"), "folder:a", "latin.txt.*--encoding="),
    "a text that is empty": (("a/pos/1.txt", "a/neg/empty.txt"), "folder:a", "empty.txt: it is empty"),
    "a folder that looks like a text": (
        ("a/pos/1.txt", "a/neg/1.txt/"),
        "folder:a",
        "must be a file, but .*1.txt is not one",
    ),
    "a device": ((), "csv:/dev/null", "neither a file nor a folder"),
}


@pytest.mark.parametrize("what", INVALID_PATHS)
def test_a_path_without_a_corpus_is_refused_in_one_sentence(tmp_path, what):
    names, dataset, words = INVALID_PATHS[what]
    make_tree(tmp_path, *names)
    with pytest.raises(InputError, match=words) as error:
        read(open_own(dataset, tmp_path, ("train",), data_dir=str(tmp_path)), "train")
    assert "\n" not in str(error.value)


def test_an_unknown_kind_is_refused_with_an_example(tmp_path):
    with pytest.raises(
        InputError, match=r"your own reviews as in reviews\.csv, but there is no 'xml:a\.xml'"
    ):
        open_own("xml:a.xml", tmp_path)


def test_too_few_reviews_to_draw_splits_from_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"has 5, and --held_out_fraction=0\.1 of them are 0"):
        open_own(name_of(write(tmp_path / "a.csv", REVIEWS[:5])), tmp_path, DEFAULT)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text,label\ngood,1\nfine,1\n", "reviews of two classes"),
        ("text,label\ngood\n", "line 2 of"),
        ("review\n", "must have the columns text and label"),
    ],
)
def test_the_program_reports_a_malformed_file_in_one_line_with_exit_code_2(
    tmp_path, cache_dir, content, words
):
    path = tmp_path / "a.csv"
    path.write_text(content)
    given = tiny(
        tmp_path / "run",
        cache_dir,
        dataset=f"csv:{path}",
        train_split="train",
        validation_split="train[:1]",
        test_split="",
    )
    completed = run_forked(command(given), capture_output=True, text=True, check=False)
    assert completed.returncode == 2
    (line,) = (line for line in completed.stderr.splitlines() if line.startswith("error: "))
    assert words in line
    assert "Traceback" not in completed.stderr
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def run_tiny(workdir, cache_dir, dataset, **settings):
    splits = {"train_split": "train[:90%]", "validation_split": "train[90%:]", "test_split": "train[:20]"}
    given = tiny(workdir, cache_dir, **{"dataset": dataset, "epochs": 1, **SELDOM, **splits, **settings})
    train.run(given, stop_requests=NoStopRequests())
    return given


def test_a_run_on_own_files_resumes_and_refuses_changed_files(tmp_path, cache_dir):
    path = write(tmp_path / "a.csv", REVIEWS)
    few = {"train_split": "train[:50%]", "eval_every_steps": 0}
    run_tiny(tmp_path / "straight", cache_dir, f"csv:{path}", epochs=2, **few)
    given = run_tiny(tmp_path / "continued", cache_dir, f"csv:{path}", **few)
    train.run({**given, "epochs": 2}, stop_requests=NoStopRequests())
    assert outcome(tmp_path / "continued") == outcome(tmp_path / "straight")
    write(path, REVIEWS[1:])
    with pytest.raises(InputError, match=r"the split train\[:50%\] has changed.* a copy of") as error:
        train.run({**given, "epochs": 3}, stop_requests=NoStopRequests())
    (source,) = re.findall(r"--init_from=(.*)\.$", str(error.value))
    new = {**given, "workdir": str(tmp_path / "new"), "init_from": source}
    train.run(new, stop_requests=NoStopRequests())
    write(path, REVIEWS)
    train.run({**given, "epochs": 3}, stop_requests=NoStopRequests())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.csv", "a"])
def test_a_killed_run_on_drawn_splits_resumes_bit_identically(tmp_path, monkeypatch, name):
    dataset, cache = name_of(write(tmp_path / name, REVIEWS)), str(tmp_path / "cache")
    splits = {
        "train_split": "train",
        "validation_split": "validation",
        "test_split": "test",
        "held_out_fraction": 0.2,
    }
    run_tiny(tmp_path / "straight", cache, dataset, **splits)
    given = tiny(tmp_path / "killed", cache, dataset=dataset, epochs=1, **SELDOM, **splits)
    assert train_until_killed({**given, "checkpoint_every_steps": 7}, monkeypatch, 7, committed=True)
    shutil.rmtree(cache)
    train.run(given, stop_requests=NoStopRequests())
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "straight")


@pytest.mark.skipif(not os.environ.get("TFDS_DATA_DIR"), reason="needs real IMDB: set TFDS_DATA_DIR")
def test_imdb_from_own_files_trains_bit_identically_to_tfds(tmp_path, cache_dir):
    imdb = open_corpus(name="imdb_reviews", data_dir=None, cache_dir=cache_dir)
    reviews = read(imdb, "train[:300]")
    splits = {
        "train_split": "train[:100]",
        "validation_split": "train[100:200]",
        "test_split": "train[200:300]",
        "max_length": 50,
        "eval_every_steps": 0,
    }
    run_tiny(tmp_path / "tfds", cache_dir, "imdb_reviews", **splits)
    expected = comparable(tmp_path / "tfds")
    for name in NAMES:
        run_tiny(tmp_path / f"run_{name}", cache_dir, name_of(write(tmp_path / name, reviews)), **splits)
        assert comparable(tmp_path / f"run_{name}") == expected


def comparable(workdir: pathlib.Path):
    """The outcome of a run, except for what names the dataset."""
    compared = outcome(workdir)
    for name in ("config.flags", "state", "best"):
        compared.pop(name)
    states = [tensors(path.with_suffix("")) for path in sorted(workdir.glob("*/ckpt-*.index"))]
    compared["states"] = [
        {name: value for name, value in state.items() if not name.startswith("frozen_flags")}
        for state in states
    ]
    compared["points"] = {
        key: value for key, value in compared["points"].items() if key[1] != "configuration"
    }
    return compared


@pytest.mark.parametrize(
    ("name", "data_dir"), [("csv:gs://b/x.csv", None), ("folder:s3://b/x", None), ("csv:x.csv", "gs://b")]
)
def test_a_uri_is_refused(tmp_path, name, data_dir):
    with pytest.raises(InputError, match=r"must name files on this machine, but (gs|s3)://b.* was given"):
        open_corpus(name=name, data_dir=data_dir, cache_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        ("text,label\n,1\n,0\n", "--text_column"),
        ("text,label\ngood,\nbad,\n", "--label_column"),
        ("text,label\ngood\nbad\n", "fix the file"),
    ],
)
@pytest.mark.parametrize("bad_rows", ["", "skip"])
def test_where_no_row_is_valid_the_cause_is_named_and_skipping_is_not_offered(
    tmp_path, content, remedy, bad_rows
):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=rf"2 of 2 rows .*first in line 2 of a\.csv.*{remedy}") as error:
        open_own(tmp_path / "a.csv", tmp_path, bad_rows=bad_rows)
    assert "--bad_rows" not in str(error.value)


def test_files_beside_the_texts_of_classes_are_counted_in_one_warning(tmp_path, caplog):
    make_tree(tmp_path, "a/neg/1.txt", "a/pos/1.TXT", "a/neg/2.html", "a/pos/2.md", "a/pos/.DS_Store")
    assert len(read(open_own(tmp_path / "a", tmp_path), "train")) == 2
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("Files beside the texts") and re.search(
        r"read: 2, such as .*2\.html\.$", warning
    )
