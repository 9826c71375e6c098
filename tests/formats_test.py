"""Files in the formats of well-known sources: what the first try does, and that following its message works.

Each case writes files, opens them as a run would, and reads all splits. A first try that fails must name the
flags of the next one.
"""

import bz2
import dataclasses
import gzip
import json
import lzma
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from fakes import tiny

from trainer import build
from trainer.config import Config
from trainer.errors import InputError

COUNT = 40
TEXTS = [
    f"Number {number}: it was {'good' if number % 2 else 'bad'}, the {number % 7}th of many, I say."
    for number in range(COUNT)
]
POSITIVE = [bool(number % 2) for number in range(COUNT)]


def labelled(negative, positive):
    """(text, label) of each review."""
    return [
        (text, positive if is_positive else negative)
        for text, is_positive in zip(TEXTS, POSITIVE, strict=True)
    ]


def quoted(value):
    return '"' + str(value).replace('"', '""') + '"'


def table(rows, header=(), delimiter=",", quote=quoted, end="\n"):
    """A table as text."""
    return "".join(delimiter.join(map(quote, row)) + end for row in ([header] if header else []) + list(rows))


@dataclasses.dataclass(frozen=True)
class Case:
    """One format.

    Attributes:
      make: writes its files into a folder, and returns what --dataset names.
      tries: the flags of each try; each but the last fails, and its message names those of the next one.
      names: the classes.
      reviews: how many all splits have together.
    """

    make: Callable[[pathlib.Path], pathlib.Path]
    tries: Sequence[Mapping[str, str]] = ({},)
    names: Sequence[str] = ("negative", "positive")
    reviews: int = COUNT


def file(name, content, encoding="utf-8"):
    """Writes one file."""

    def make(folder):
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return make


def tree(**files):
    """Writes a folder of files, given by their paths in it."""

    def make(folder):
        root = folder / "corpus"
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    return make


def folders(root_of, negative, positive):
    """The texts as files in a folder for each class."""
    return {
        f"{root_of}{positive if is_positive else negative}/{number}_7.txt": text
        for number, (text, is_positive) in enumerate(zip(TEXTS, POSITIVE, strict=True))
    }


def arrow_table(negative=0, positive=1):
    rows = labelled(negative, positive)
    return pyarrow.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]})


def parquet_bytes(content):
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(content, sink, row_group_size=7)
    return sink.getvalue().to_pybytes()


def arrow_bytes(content, new=pyarrow.ipc.new_stream):
    sink = pyarrow.BufferOutputStream()
    with new(sink, content.schema) as writer:
        writer.write_table(content)
    return sink.getvalue().to_pybytes()


def zstd_bytes(content):
    return pyarrow.compress(content, codec="zstd", asbytes=True)


def xlsx(folder):
    path = folder / "reviews.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return path


CSV = table(labelled("neg", "pos"), ("text", "label"))
JSONL = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in labelled(0, 1))
PLAIN = {"quote": str}  # without quotes; no text holds a tab, a semicolon or a pipe
STARS = [(text, number % 5 + 1) for number, text in enumerate(TEXTS)]
FRENCH = [(f"C'était très {text} à l’été", label) for text, label in labelled(0, 1)]
CHINESE = [
    (f"这部电影{'很好看' if positive else '太差了'}，值得再看一遍，第{number}次。", int(positive))
    for number, positive in enumerate(POSITIVE)
]
JAPANESE = [
    (
        f"この映画はとても{'良かった' if positive else '悪かった'}です。また見たいと思います{number}。",
        int(positive),
    )
    for number, positive in enumerate(POSITIVE)
]


def values(negative, positive):
    """A csv with other values of the label."""
    return file("reviews.csv", table(labelled(negative, positive), ("text", "label")))


CASES = {
    "Kaggle IMDB": Case(
        file(
            "IMDB Dataset.csv",
            table(
                [(f"{text}<br /><br />", label) for text, label in labelled("negative", "positive")],
                ("review", "sentiment"),
            ),
        )
    ),
    "aclImdb": Case(
        tree(
            **folders("train/", "neg", "pos"),
            **folders("test/", "neg", "pos"),
            **{
                "train/unsup/0_0.txt": "no label",
                "imdb.vocab": "the",
                "README": "x",
                "train/urls_pos.txt": "http://x",
            },
        ),
        reviews=2 * COUNT,
    ),
    "Sentiment140": Case(
        file(
            "training.1600000.csv",
            table(
                [
                    (label, n, "Mon Apr 06 22:19:45 PDT 2009", "NO_QUERY", f"user{n}", f"{text} café")
                    for n, (text, label) in enumerate(labelled(0, 4))
                ]
            ),
            "latin-1",
        ),
        (
            {},
            {"encoding": "cp1252"},
            {"encoding": "cp1252", "header": "none", "text_column": "6", "label_column": "1"},
        ),
        ("0", "4"),
    ),
    "Yelp polarity": Case(
        tree(
            **{
                "train.csv": table([(label, f"{text}\\n\\nwill return") for text, label in labelled(1, 2)]),
                "test.csv": table([(label, text) for text, label in labelled(1, 2)]),
                "readme.txt": "x",
            }
        ),
        names=("1", "2"),
        reviews=2 * COUNT,
    ),
    "Amazon polarity": Case(
        tree(
            **{
                "train.csv": table(
                    [(label, f"title {n}", text) for n, (text, label) in enumerate(labelled(1, 2))]
                ),
                "test.csv": table(
                    [(label, f"title {n}", text) for n, (text, label) in enumerate(labelled(1, 2))]
                ),
            }
        ),
        ({}, {"header": "none", "text_column": "3", "label_column": "1"}),
        ("1", "2"),
        2 * COUNT,
    ),
    "SST-2": Case(
        tree(
            **{
                "train.tsv": table(labelled(0, 1), ("sentence", "label"), "\t", str),
                "dev.tsv": table(labelled(0, 1), ("sentence", "label"), "\t", str),
                "test.tsv": table(enumerate(TEXTS), ("index", "sentence"), "\t", str),
            }
        ),
        ({}, {"test_split": ""}),
        reviews=2 * COUNT,
    ),
    "a submission beside": Case(
        tree(**{"train.csv": CSV, "test.csv": CSV, "sample_submission.csv": "id,label\n1,0\n"}),
        reviews=2 * COUNT,
    ),
    "a second download beside": Case(
        tree(**{"train.csv": CSV, "train (1).csv": "broken", "test.csv": CSV}), reviews=2 * COUNT
    ),
    "three classes": Case(
        file(
            "r.csv",
            table(
                [(text, ("bad", "fair", "good")[n % 3]) for n, text in enumerate(TEXTS)], ("text", "label")
            ),
        ),
        names=("bad", "fair", "good"),
    ),
    "stars": Case(file("r.csv", table(STARS, ("text", "label"))), names=tuple("12345")),
    "stars as two classes": Case(
        file("r.csv", table(STARS, ("text", "label"))), ({"labels": "negative=1,2;positive=4,5"},), reviews=32
    ),
    "yes and no": Case(values("no", "yes"), names=("no", "yes")),
    "thumbs": Case(values("thumbs down", "thumbs up"), names=("thumbs down", "thumbs up")),
    "-1 and 1": Case(values(-1, 1), names=("-1", "1")),
    "1 and 2": Case(values(1, 2), names=("1", "2")),
    "0 and 4": Case(values(0, 4), names=("0", "4")),
    "T and F": Case(values("F", "T"), names=("F", "T")),
    "good and bad": Case(values("bad", "good"), names=("bad", "good")),
    "+ and -": Case(values("-", "+"), names=("-", "+")),
    "LABEL_0": Case(values("LABEL_0", "LABEL_1"), names=("LABEL_0", "LABEL_1")),
    "SMS spam": Case(
        file(
            "spam.csv",
            table(
                [(label, f"{text} £5", "", "", "") for text, label in labelled("ham", "spam")],
                ("v1", "v2", "", "", ""),
                quote=lambda v: str(v) if "," not in str(v) else quoted(v),
            ),
            "latin-1",
        ),
        ({}, {"encoding": "cp1252"}),
        ("ham", "spam"),
    ),
    "fresh and rotten": Case(values("rotten", "fresh"), names=("rotten", "fresh")),
    "positivo": Case(values("negativo", "positivo"), names=("negativo", "positivo")),
    "Steam": Case(values("False", "True")),
    "1.0 and 0.0": Case(values("0.0", "1.0")),
    "mixed spellings": Case(
        file(
            "r.csv",
            table(
                [(text, (" pos", "Positive", "NEGATIVE", "neg ")[n % 4]) for n, text in enumerate(TEXTS)],
                ("text", "label"),
            ),
        )
    ),
    "csv.gz": Case(file("reviews.csv.gz", gzip.compress(CSV.encode()))),
    "tsv.bz2": Case(
        file("reviews.tsv.bz2", bz2.compress(table(labelled(0, 1), ("text", "label"), "\t", str).encode()))
    ),
    "jsonl.xz": Case(file("reviews.jsonl.xz", lzma.compress(JSONL.encode()))),
    "csv.zst": Case(file("reviews.csv.zst", zstd_bytes(CSV.encode()))),
    "csv.gz without its name": Case(file("reviews.csv", gzip.compress(CSV.encode()))),
    "datasets to_json": Case(file("reviews.json", JSONL)),
    "JSON array": Case(
        file("reviews.json", json.dumps([json.loads(line) for line in JSONL.splitlines()], indent=1))
    ),
    "a blank last line": Case(file("reviews.jsonl", JSONL + "\n")),
    "parquet": Case(file("reviews.parquet", parquet_bytes(arrow_table()))),
    "parquet of words": Case(
        file("reviews.parquet", parquet_bytes(arrow_table("ham", "spam"))), names=("ham", "spam")
    ),
    "parquet on the Hub": Case(
        tree(
            **{f"data/train-0000{n}-of-00002.parquet": parquet_bytes(arrow_table()) for n in range(2)},
            **{"data/test-00000-of-00001.parquet": parquet_bytes(arrow_table())},
        ),
        reviews=3 * COUNT,
    ),
    "arrow file": Case(file("reviews.arrow", arrow_bytes(arrow_table(), pyarrow.ipc.new_file))),
    "save_to_disk": Case(
        tree(
            **{
                "dataset_dict.json": '{"splits": ["train", "test"]}',
                **{
                    f"{split}/{name}": content
                    for split in ("train", "test")
                    for name, content in {
                        "data-00000-of-00001.arrow": arrow_bytes(arrow_table()),
                        "dataset_info.json": "{}",
                        "state.json": '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}',
                    }.items()
                },
            }
        ),
        reviews=2 * COUNT,
    ),
    "Excel, semicolon": Case(
        file(
            "reviews.csv",
            table(
                labelled(0, 1),
                ("review", "sentiment"),
                ";",
                quote=lambda v: quoted(v) if ";" in str(v) else str(v),
                end="\r\n",
            ),
        )
    ),
    "Excel, sep": Case(
        file("reviews.csv", "sep=;\r\n" + table(labelled(0, 1), ("text", "label"), ";", str, "\r\n"))
    ),
    "Excel, Unicode text": Case(
        file(
            "reviews.csv", "\ufeff" + table(labelled(0, 1), ("text", "label"), "\t", str, "\r\n"), "utf-16-le"
        )
    ),
    "Excel, UTF-8": Case(
        file("reviews.csv", "\ufeff" + table(labelled(0, 1), ("text", "label"), end="\r\n"))
    ),
    "old Mac line ends": Case(file("reviews.csv", table(labelled(0, 1), ("text", "label"), end="\r"))),
    "pipes": Case(file("reviews.csv", table(labelled(0, 1), ("text", "label"), "|", str))),
    "cp1252": Case(
        file("reviews.csv", table(FRENCH, ("text", "label")), "cp1252"), ({}, {"encoding": "cp1252"})
    ),
    "gb18030": Case(
        file("reviews.csv", table(CHINESE, ("text", "label")), "gb18030"), ({}, {"encoding": "gb18030"})
    ),
    "Shift JIS": Case(
        file("reviews.csv", table(JAPANESE, ("text", "label")), "shift_jis"), ({}, {"encoding": "cp932"})
    ),
    "an empty review": Case(file("reviews.csv", CSV + '"",pos\n'), ({}, {"bad_rows": "skip"})),
    "an empty label": Case(file("reviews.csv", CSV + "fine,\n"), ({}, {"bad_rows": "skip"})),
    "Google Sheets TSV": Case(
        file(
            "reviews.tsv",
            table([(f'"Wow" {text}', label) for text, label in labelled(0, 1)], ("text", "label"), "\t", str),
        )
    ),
    "a lone quote in a TSV": Case(
        file(
            "reviews.tsv",
            table(
                [
                    (f'"{text}' if n == 3 else f'{text} 42"' if n == 30 else text, label)
                    for n, (text, label) in enumerate(labelled(0, 1))
                ],
                ("text", "label"),
                "\t",
                str,
            ),
        )
    ),
    "pandas index": Case(
        file(
            "reviews.csv",
            table(
                [(n, text, label) for n, (text, label) in enumerate(labelled(0, 1))], ("", "text", "label")
            ),
        )
    ),
    "no header, two columns": Case(file("reviews.csv", table(labelled(0, 1)))),
    "positive and negative folders": Case(tree(**folders("", "negative", "positive"))),
    "spam and ham folders": Case(tree(**folders("", "ham", "spam")), names=("ham", "spam")),
    "folders of stars": Case(
        tree(**{f"{star}/{n}.txt": text for n, (text, star) in enumerate(STARS)}), names=tuple("12345")
    ),
    "unknown column names": Case(
        file(
            "reviews.csv",
            table(
                [(n, text, label) for n, (text, label) in enumerate(labelled(0, 1))],
                ("no", "what_they_said", "liked"),
            ),
        ),
        ({}, {"text_column": "what_they_said", "label_column": "liked"}),
    ),
    "doccano": Case(
        file(
            "all.jsonl",
            "".join(
                json.dumps({"id": n, "text": text, "label": [label]}) + "\n"
                for n, (text, label) in enumerate(labelled("neg", "pos"))
            ),
        )
    ),
}


def opened(dataset, folder, **flags):
    """The corpus as a run opens it; the cache is in `folder`."""
    splits = {"train_split": "train", "validation_split": "validation", "test_split": "test"}
    given = {**tiny(folder / "run", str(folder / "cache")), **splits, "dataset": str(dataset), **flags}
    return build.open_corpus(Config(**given)), [given[name] for name in splits if given[name]]


@pytest.mark.parametrize("name", CASES)
def test_the_message_of_a_first_try_leads_to_all_reviews(tmp_path, name):
    case = CASES[name]
    dataset = case.make(tmp_path)
    for flags, following in zip(case.tries, case.tries[1:], strict=False):
        with pytest.raises(InputError) as raised:
            corpus, splits = opened(dataset, tmp_path, **flags)
            for split in splits:
                list(corpus.reviews(split))
        for flag in following.items() - flags.items():
            assert "--{}={}".format(*flag) in str(raised.value)
    corpus, splits = opened(dataset, tmp_path, **case.tries[-1])
    assert corpus.classes.names == tuple(case.names)
    read = [
        (text.decode(), corpus.classes.names[label])
        for split in splits
        for texts, labels in corpus.reviews(split)
        for text, label in zip(texts, labels, strict=True)
    ]
    assert len(read) == case.reviews == sum(corpus.examples(split) for split in splits)
    if len(case.names) == 2:
        good = ("good", "很好看", "良かった")
        wrong = [
            text for text, label in read if (label == case.names[1]) != any(word in text for word in good)
        ]
        assert wrong == [] or name.startswith(("stars", "mixed"))


def test_several_columns_are_joined(tmp_path):
    rows = [(label, f"title {number}", text) for number, (text, label) in enumerate(labelled(1, 2))]
    path = file("train.csv", table(rows))(tmp_path)
    corpus, _ = opened(path, tmp_path, header="none", text_column="2,3", label_column="1", test_split="")
    texts = {
        text.decode() for split in corpus.split_sizes for batch, _ in corpus.reviews(split) for text in batch
    }
    assert texts == {f"title {number} {text}" for number, text in enumerate(TEXTS)}


def test_there_are_forty_formats_and_most_need_at_most_one_more_flag():
    assert len(CASES) >= 40
    assert sum(len(case.tries) <= 2 and len(case.tries[-1]) <= 1 for case in CASES.values()) >= 30


def test_a_workbook_must_be_saved_as_csv_and_then_works(tmp_path):
    with pytest.raises(InputError, match="save it as csv"):
        opened(xlsx(tmp_path), tmp_path)
    assert opened(file("saved.csv", CSV)(tmp_path), tmp_path)[0].examples("train") > 0
