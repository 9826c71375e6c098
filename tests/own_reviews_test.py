"""Corpora from the user's own files."""

import csv
import io
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from compare_runs import outcome, tensors
from fakes import NoStopRequests, command, tiny
from processes import run as run_forked
from reference_runs import train_until_killed

from trainer import train
from trainer.data import corpus as corpora
from trainer.data import own_reviews
from trainer.data.corpus import open_corpus
from trainer.errors import InputError

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
    assert corpus.split_sizes == {"train": 60, "test": 40}
    assert read(corpus, "test") == REVIEWS[60:]


def test_a_relative_path_is_relative_to_data_dir(tmp_path):
    write(tmp_path / "a.csv", REVIEWS)
    write(tmp_path / "b", REVIEWS)
    assert open_own("csv:a.csv", tmp_path, data_dir=str(tmp_path)).split_sizes == {"train": 100}
    assert open_own("b", tmp_path, data_dir=str(tmp_path)).split_sizes == {"train": 100}


def test_the_reviews_of_a_file_are_counted_only_once_until_it_changes(tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv", REVIEWS)
    first = open_own(name_of(path), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(own_reviews.OwnReviews, "_read", None)
        assert open_own(name_of(path), tmp_path).split_sizes == {"train": 100}
        assert open_own(name_of(path), tmp_path).version == first.version
    write(path, REVIEWS[:50])
    changed = open_own(name_of(path), tmp_path)
    assert changed.split_sizes == {"train": 50}
    assert changed.version != first.version


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        "null",
        '{"train": 900}',
        '{"counts": {"train": 900}}',
        '{"counts": {"train": 900}, "sha256": ""}',
        "\0\0",
    ],
)
def test_a_damaged_count_file_is_not_used(tmp_path, content):
    path = write(tmp_path / "a.csv", REVIEWS)
    open_own(name_of(path), tmp_path)
    (kept,) = (tmp_path / "cache" / "counts").iterdir()
    kept.write_text(content)
    assert open_own(name_of(path), tmp_path).split_sizes == {"train": 100}


def test_counts_that_do_not_belong_to_these_files_are_not_used(tmp_path):
    path = write(tmp_path / "a.csv", REVIEWS)
    open_own(name_of(path), tmp_path)
    (kept,) = (tmp_path / "cache" / "counts").iterdir()
    for counts in ({"train": 0}, {"train": True}, {"test": 100}, ["train"], {}):
        kept.write_text(json.dumps({"counts": counts, "sha256": own_reviews._digest(counts)}))
        assert open_own(name_of(path), tmp_path).split_sizes == {"train": 100}


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
    path.write_text("text,label\n\ngood,1\n\n\nbad,perhaps\n")
    with pytest.raises(InputError, match="line 6 of"):
        open_own(name_of(path), tmp_path)


def test_the_columns_can_be_chosen_by_name(tmp_path):
    (tmp_path / "a.csv").write_text("id,Review,Stars\n1,good,1\n2,bad,0\n")
    corpus = open_own(name_of(tmp_path / "a.csv"), tmp_path, text_column="review", label_column="stars")
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


GOOD = "text,label\ngood,1\nbad,0\n"


def packed():
    archive = io.BytesIO()
    np.savez(archive, a=np.zeros(3))
    return archive.getvalue()


MALFORMED_FILES = {
    "Latin-1": ("a.csv", GOOD.encode() + b"na\xefve,1\n", "line 4 of .*a.csv is not"),
    "NUL": ("a.csv", b"text,label\ngo\0od,1\n", "line 2 of .*NUL byte"),
    "zip": ("a.csv", packed(), "is a zip archive"),
    "Parquet": ("a.csv", b"PAR1\x15\x04\x15\x10\xff\n", "can't be read as parquet"),
    "a quote that never closes": (
        "a.csv",
        'text,label\ngood,1\n"bad,0\ngood,1\n',
        "line 3 of .*never closes",
    ),
    "a quote within a field": (
        "a.csv",
        'text,label\n"good" film,1\n',
        "line 2 of .*follows its closing quote",
    ),
    "a header whose quote never closes": ("a.csv", '"text,label\ngood,1\n', "line 1 of .*never closes"),
    "a header over two lines": ("a.csv", '"te\nxt",label\ngood,1\n', r"a.csv are te\\nxt \(good\), label"),
    "a header with a terminal control sequence": (
        "a.csv",
        "\x1b[2Jtext,label\ngood,1\n",
        r"a.csv are \\x1b",
    ),
    "too many fields": (
        "a.csv",
        "text,label\ngood, but,1\n",
        "line 2 of .*3 fields, but the first row has 2",
    ),
    "too few fields": ("a.csv", "text,label\ngood,1\nbad\n", "line 3 of .*1 field, but the first row has 2"),
    "no header": ("a.csv", "a,good,1\nb,bad,0\n", r"a.csv are 1 \(a\), 2 \(good\)"),
    "a column twice": ("a.csv", "text,text,label\ngood,bad,1\n", "text is there 2 times"),
    "a csv in a jsonl": ("a.jsonl", GOOD, "line 1 of .*not JSON"),
    "no label": ("a.csv", "text,label\ngood,1\nbad,\n", "line 3 of .*its label is ''"),
    "an unknown label": ("a.csv", "text,label\ngood,maybe\n", "line 2 of .*'maybe'"),
    "a third class": ("a.csv", "text,label\ngood,2\n", "line 2 of .*'2'"),
    "a label that is not an integer": ("a.csv", "text,label\ngood,1.5\n", "line 2 of .*'1.5'"),
    "an empty text": ("a.csv", "text,label\ngood,1\n,0\n", "line 3 of .*is empty"),
    "a text of spaces": ("a.csv", 'text,label\n" \n ",0\n', "line 2 of .*is empty"),
    "an empty file": ("a.csv", "", "line 1 of .*is empty"),
    "an empty jsonl": ("a.jsonl", "", "holds none"),
    "only a header": ("a.csv", "text,label\n", "holds none"),
    "only blank lines": ("a.csv", "\n\n\n", "line 1 of"),
    "JSON cut short": ("a.jsonl", '{"text": "good", "label": 1}\n{"text": "ba', "line 2 of .*not JSON"),
    "JSON over several lines": ("a.jsonl", '{\n"text": "good"\n}\n', "line 1 of .*not JSON"),
    "JSON without a label": ("a.jsonl", '{"text": "good"}\n', r"a.jsonl are text \(good\)"),
    "JSON null": ("a.jsonl", '{"text": null, "label": 1}\n', 'line 1 of .*no "text"'),
    "a text that is a number": ("a.jsonl", '{"text": 5, "label": 1}\n', "line 1 of .*is not a text"),
    "a key twice": ("a.jsonl", '{"text": "good", "label": 1, "label": 0}\n', "line 1 of .*a key twice"),
    "JSON too deep": ("a.jsonl", "[" * 100_000 + "\n", "line 1 of .*not JSON"),
}


@pytest.mark.parametrize("what", MALFORMED_FILES)
def test_a_malformed_file_is_refused_in_one_sentence_with_file_and_line(tmp_path, what):
    name, content, words = MALFORMED_FILES[what]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=words) as error:
        read(open_own(name_of(path), tmp_path), "train")
    assert str(path) in str(error.value)
    assert str(error.value).isprintable()
    assert not list(tmp_path.glob("cache/counts/*"))


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
    "a file in place of a folder": (("a.csv",), "folder:a.csv", "must name a folder"),
    "a folder without classes": (("a/x.txt",), "folder:a", "must hold pos/ and neg/"),
    "only one class": (("a/pos/1.txt",), "folder:a", "must hold pos/ and neg/, but .*a holds only pos/"),
    "a split of one class": (
        ("a/train/pos/1.txt", "a/train/neg/1.txt", "a/test/neg/1.txt"),
        "folder:a",
        "a/test holds only neg/",
    ),
    "a split that cannot be named": (("a/train.csv", "a/my test.csv"), "csv:a", r"my test\.csv; rename it"),
    "a split that is called all": (("a/all.csv",), "csv:a", r"not be .all., but there is .*all\.csv"),
    "a path that is too long": ((), f"csv:{'x' * 300}", "File name too long"),
    "a path of a folder that is too long": ((), f"folder:{'x' * 300}", "File name too long"),
    "an empty class": (("a/pos/1.txt", "a/neg/"), "folder:a", r"a/neg holds no \.txt"),
    "no texts": (("a/pos/1.md", "a/neg/1.md"), "folder:a", r"holds no \.txt"),
    "a text that is not UTF-8": (("a/pos/1.txt", "a/neg/latin.txt"), "folder:a", "line 1 of .*latin.txt"),
    "a text that is empty": (("a/pos/1.txt", "a/neg/empty.txt"), "folder:a", "empty.txt is empty"),
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
        read(open_own(dataset, tmp_path, data_dir=str(tmp_path)), "train")
    assert "\n" not in str(error.value)


def test_an_unknown_kind_is_refused_with_an_example(tmp_path):
    with pytest.raises(
        InputError, match=r"your own files as in csv:reviews\.csv, but there is no 'xml:a\.xml'"
    ):
        open_own("xml:a.xml", tmp_path)


def test_too_few_reviews_to_draw_splits_from_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"has 5, and --held_out_fraction=0\.1 of them are 0"):
        open_own(name_of(write(tmp_path / "a.csv", REVIEWS[:5])), tmp_path, DEFAULT)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text,label\ngood,1\nfine,1\n", "reviews of both labels"),
        ("text,label\ngood\n", "line 2 of"),
        ("blurb\n", "must have the columns"),
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
    given = tiny(workdir, cache_dir, **{"dataset": dataset, "epochs": 1, **splits, **settings})
    train.run(given, stop_requests=NoStopRequests())
    return given


def test_a_run_on_own_files_resumes_and_refuses_changed_files(tmp_path, cache_dir):
    path = write(tmp_path / "a.csv", REVIEWS)
    run_tiny(tmp_path / "straight", cache_dir, f"csv:{path}", epochs=2)
    given = run_tiny(tmp_path / "continued", cache_dir, f"csv:{path}")
    train.run({**given, "epochs": 2}, stop_requests=NoStopRequests())
    assert outcome(tmp_path / "continued") == outcome(tmp_path / "straight")
    write(path, REVIEWS[1:])
    with pytest.raises(InputError, match=r"the split train\[:90%\] has changed"):
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
    given = tiny(tmp_path / "killed", cache, dataset=dataset, epochs=1, **splits)
    assert train_until_killed(given, monkeypatch, 7, committed=True)
    shutil.rmtree(cache)
    train.run(given, stop_requests=NoStopRequests())
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "straight")


@pytest.mark.skipif(not os.environ.get("TFDS_DATA_DIR"), reason="needs real IMDB: set TFDS_DATA_DIR")
def test_imdb_from_own_files_trains_bit_identically_to_tfds(tmp_path, cache_dir):
    imdb = open_corpus(name="imdb_reviews", data_dir=None, cache_dir=cache_dir)
    reviews = read(imdb, "train[:300]")
    splits = {
        "train_split": "train[:200]",
        "validation_split": "train[200:300]",
        "test_split": "train[:50]",
        "max_length": 50,
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
