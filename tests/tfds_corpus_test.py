import os
import pathlib
import re
import shutil
import socket
import socketserver
import subprocess
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds
from fakes import command
from processes import popen
from tensorflow_datasets.core import constants
from token_store_test import without_privileges

from trainer import machine
from trainer.data import corpus as corpora
from trainer.data import label_counts, sample_reviews, tfds_builder
from trainer.data.corpus import open_corpus
from trainer.data.tables import Options
from trainer.errors import InputError, StorageError
from trainer.labels import NEGATIVE_POSITIVE


class TinyReviews(tfds.core.GeneratorBasedBuilder):
    """100 reviews to train on, 10 to test on, and 5 without a label."""

    VERSION = tfds.core.Version("1.2.3")
    LABELS = 2

    def _info(self):
        features = {
            "text": tfds.features.Text(),
            "label": tfds.features.ClassLabel(num_classes=self.LABELS),
            "id": np.int64,
        }
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features, description="Tiny.", citation="@none")

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(0, 100),
            "test": self._generate_examples(100, 110),
            "unsupervised": self._unlabelled(),
        }

    def _generate_examples(self, start, stop):
        for number in range(start, stop):
            yield number, {"text": f"Review {number}", "label": number % 2, "id": number}

    def _unlabelled(self):
        for number in range(5):
            yield number, {"text": "?", "label": -1, "id": number}


class Verdicts(TinyReviews):
    """Unusual names, and a label that is a number or a boolean."""

    def _info(self):
        features = {
            "sentence": tfds.features.Text(),
            "is_good": tfds.features.Scalar(dtype=np.bool_),
            "votes": np.int64,
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), description="", citation=""
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 10)}

    def _generate_examples(self, start, stop):
        for number in range(start, stop):
            yield number, {"sentence": f"Sentence {number}", "is_good": number % 2 == 0, "votes": number}


class ThreeStars(TinyReviews):
    """Three classes with names, and a test split without labels."""

    def _info(self):
        features = {
            "sentence": tfds.features.Text(),
            "stars": tfds.features.ClassLabel(names=["bad", "fair", "good"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 60), "test": self._generate_examples(-5, 0)}

    def _generate_examples(self, start, stop):
        for number in range(start, stop):
            yield number, {"sentence": f"Sentence {number}", "stars": number % 3 if number >= 0 else -1}


class OutOfReach(TinyReviews):
    """Its download always fails."""

    def _split_generators(self, dl_manager):
        dl_manager.download(self.url)


class NotYetWritten(TinyReviews):
    """Its own code is wrong."""

    def _split_generators(self, dl_manager):
        raise LookupError("no rows\nat all")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    TinyReviews(data_dir=folder).download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=3)
    )
    return folder


@pytest.fixture
def tiny(data_dir):
    return open_from(data_dir)


def open_from(data_dir, name="tiny_reviews", *, text_column="text", label_column="label", **kwargs):
    return open_corpus(
        name=name,
        data_dir=str(data_dir),
        cache_dir=str(pathlib.Path(data_dir) / "cache"),
        options=Options(text_column=text_column, label_column=label_column),
        **kwargs,
    )


def texts_of(corpus, split):
    return [text for texts, _ in corpus.reviews(split) for text in texts]


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in pathlib.Path(folder).rglob("*")}


def test_a_corpus_is_described_by_its_builder(tiny, data_dir):
    assert (tiny.name, tiny.version, tiny.description, tiny.citation) == (
        "tiny_reviews",
        "1.2.3",
        "Tiny.",
        "@none",
    )
    assert tiny.split_sizes == {"train": 100, "test": 10, "unsupervised": 5}
    builder = TinyReviews(data_dir=data_dir)
    read = tfds_builder.read(builder, "train", tfds_builder.Columns("text", "label"), 4).unbatch()
    assert tiny.element_spec == str(read.element_spec)
    files = sorted(data_dir.rglob("*.tfrecord*"))
    assert sorted(tiny.sources) == [
        (str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files
    ]
    assert len(files) == 9


def test_each_review_has_its_label(tiny):
    ((texts, labels),) = tiny.reviews("train")
    assert (texts.dtype, labels.dtype) == (object, np.uint8)
    numbers = [int(text.split()[1]) for text in texts]
    assert sorted(numbers) == list(range(100))
    assert [number % 2 for number in numbers] == labels.tolist()


def test_reviews_are_in_the_order_of_the_files_however_they_are_split(tiny):
    whole = texts_of(tiny, "train")
    shards = [f"train[{shard}shard]" for shard in range(3)]
    assert [text for shard in shards for text in texts_of(tiny, shard)] == whole
    assert texts_of(tiny, "train[:17]") + texts_of(tiny, "train[17:]") == whole
    assert texts_of(tiny, "train[:90%]") == whole[:90]
    assert texts_of(tiny, "test+train[-3:]") == texts_of(tiny, "test") + whole[-3:]


@pytest.mark.parametrize("split", ["train", "train[17:60]", "test+train[-3:]"])
def test_reviews_are_those_that_tfds_reads_one_by_one(tiny, data_dir, split):
    builder = TinyReviews(data_dir=data_dir)
    one_by_one = builder.as_dataset(
        split=split, shuffle_files=False, read_config=tfds.ReadConfig(interleave_cycle_length=1)
    )
    expected = [(example["text"], example["label"]) for example in one_by_one.as_numpy_iterator()]
    assert [review for batch in tiny.reviews(split) for review in zip(*batch, strict=True)] == expected


def test_reviews_are_read_in_batches_of_bounded_size(tiny, monkeypatch):
    monkeypatch.setattr(corpora, "READ_BATCH", 16)
    assert [len(texts) for texts, _ in tiny.reviews("train[:40]")] == [16, 16, 8]


@pytest.mark.parametrize(
    ("split", "count"),
    [
        ("train", 100),
        ("train[:90%]", 90),
        ("test[:7]", 7),
        ("train[10:20]+test", 20),
        ("train[-5:]", 5),
        ("all", 115),
    ],
)
def test_a_split_has_as_many_examples_as_reviews(tiny, split, count):
    assert tiny.examples(split) == count
    if split != "all":
        assert len(texts_of(tiny, split)) == count


@pytest.mark.parametrize(
    "split",
    [
        "validation",
        "",
        "train[",
        "train[:0]",
        "train[:0%]",
        "train[20:10]",
        "train[101:]",
        "train[x:]",
        "all[:5]",
        "train[9:5]+test",
    ],
)
def test_a_split_that_selects_nothing_is_refused_with_the_splits_there_are(tiny, split):
    with pytest.raises(InputError, match="its splits are train, test, unsupervised") as error:
        tiny.examples(split)
    assert repr(split) in str(error.value) and "\n" not in str(error.value)


def test_texts_and_labels_may_have_other_names(tmp_path):
    corpus = open_from(tmp_path, "verdicts", text_column="sentence", label_column="is_good")
    ((texts, labels),) = corpus.reviews("train")
    assert [(int(text.split()[1]) + 1) % 2 for text in texts] == labels.tolist()
    assert corpus.classes == NEGATIVE_POSITIVE and corpus.version == "1.2.3"


def test_numbers_are_classes_and_are_counted_once(tmp_path, monkeypatch):
    columns = {"text_column": "sentence", "label_column": "votes"}
    corpus = open_from(tmp_path, "verdicts", **columns)
    assert corpus.classes.names == tuple(map(str, range(10)))
    assert [int(text.split()[1]) for text in texts_of(corpus, "train")] == np.concatenate(
        [labels for _, labels in corpus.reviews("train")]
    ).tolist()
    monkeypatch.setattr(label_counts, "count_labels", None)
    merged = open_from(tmp_path, "verdicts", labels="low=0,1,2;high=8,9", **columns)
    assert merged.classes.names == ("low", "high") and merged.split_sizes == {"train": 5}
    assert merged.left_out == {str(votes): 1 for votes in range(3, 8)}
    ((texts, labels),) = merged.reviews("train")
    assert {int(text.split()[1]): label for text, label in zip(texts, labels, strict=True)} == {
        0: 0,
        1: 0,
        2: 0,
        8: 1,
        9: 1,
    }
    assert merged.examples("train[:2]") == len(texts_of(merged, "train[:2]")) == 2


@pytest.fixture(scope="module")
def stars_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stars")
    ThreeStars(data_dir=folder).download_and_prepare()
    return folder


def labels_of(corpus, split):
    return {
        int(text.split()[1]): int(label)
        for texts, labels in corpus.reviews(split)
        for text, label in zip(texts, labels, strict=True)
    }


def test_a_dataset_gives_names_and_columns_of_its_classes(stars_dir, caplog):
    corpus = open_from(stars_dir, "three_stars")
    assert corpus.classes.names == ("bad", "fair", "good")
    assert labels_of(corpus, "train") == {number: number % 3 for number in range(60)}
    assert "--text_column=sentence is taken" in caplog.text
    assert "--label_column=stars is taken" in caplog.text


@pytest.mark.parametrize("labels", ["bad,good", "0,2", "bad=0;good=2"])
def test_labels_of_a_dataset_may_be_names_or_numbers(stars_dir, caplog, labels):
    corpus = open_from(stars_dir, "three_stars", labels=labels, requested_splits=("train",))
    assert labels_of(corpus, "train") == {
        number: int(number % 3 == 2) for number in range(60) if number % 3 != 1
    }
    assert corpus.left_out == {"fair": 20} and "20 of 60 rows" in caplog.text and "fair (20)" in caplog.text
    assert corpus.classes.number_of("good") == corpus.classes.number_of("2") == 1


@pytest.mark.parametrize("labels", ["", "bad,good"])
def test_a_test_split_without_labels_is_refused_and_the_remedy_works(stars_dir, labels):
    names = {"labels": labels, "requested_splits": ("train", "validation", "test")}
    with pytest.raises(InputError, match=r"split test has none .* give --test_split= "):
        list(open_from(stars_dir, "three_stars", **names).reviews("test"))
    corpus = open_from(stars_dir, "three_stars", labels=labels, requested_splits=("train", "validation"))
    assert corpus.examples("validation") == (4 if labels else 6)


def test_validation_is_drawn_from_train_and_test_stays(data_dir, tiny, caplog):
    requested = ("train", "validation", "test")
    corpus = open_from(data_dir, requested_splits=requested, held_out_fraction=0.2)
    assert corpus.split_sizes == {"train": 80, "validation": 20, "test": 10, "unsupervised": 5}
    whole, held_out = texts_of(tiny, "train"), texts_of(corpus, "validation")
    assert texts_of(corpus, "train") == [text for text in whole if text not in held_out]
    assert texts_of(corpus, "test[:50%]") == texts_of(tiny, "test[:50%]")
    assert corpus.version.startswith("1.2.3-") and "validation is drawn from train" in caplog.text
    other = open_from(data_dir, requested_splits=requested, held_out_fraction=0.2, seed=1)
    assert other.version != corpus.version and texts_of(other, "validation") != held_out


def test_reviews_without_a_label_are_refused(tiny):
    with pytest.raises(InputError, match="split unsupervised has none"):
        list(tiny.reviews("unsupervised"))


def test_a_prepared_dataset_is_opened_without_writing_or_a_network(data_dir, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = tree(data_dir)
    assert len(texts_of(open_from(data_dir), "train")) == 100
    assert tree(data_dir) == before


def test_a_dataset_is_prepared_where_tfds_keeps_it(tmp_path, capfd):
    corpus = open_from(tmp_path)
    assert corpus.split_sizes["train"] == 100
    assert (tmp_path / "tiny_reviews" / "1.2.3" / "dataset_info.json").exists()
    assert capfd.readouterr().out == "", "TFDS prints"


def test_a_failed_download_is_one_sentence_with_both_remedies(tmp_path, monkeypatch):
    tries = []

    class Refuse(socketserver.BaseRequestHandler):
        def handle(self):
            tries.append(self.client_address)

    monkeypatch.setenv("NO_PROXY", "*")
    with socketserver.TCPServer(("localhost", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(
            OutOfReach, "url", f"http://localhost:{server.server_address[1]}/reviews.tar.gz", raising=False
        )
        with pytest.raises(
            InputError, match=r"out_of_reach .* connect to the network, or .* --data_dir or TFDS_DATA_DIR"
        ) as error:
            open_from(tmp_path, "out_of_reach")
        server.shutdown()
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    assert len(tries) == 3


def test_a_dataset_whose_own_code_fails_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no rows") as error:
        open_from(tmp_path, "not_yet_written")
    assert "\n" not in str(error.value)


def test_an_empty_folder_in_place_of_a_dataset_is_named(tmp_path):
    (tmp_path / "tiny_reviews" / "1.2.3").mkdir(parents=True)
    with pytest.raises(InputError, match=r"tiny_reviews/1\.2\.3 .* delete it"):
        open_from(tmp_path)


@pytest.mark.parametrize(
    "damage", [pathlib.Path.unlink, lambda path: os.truncate(path, path.stat().st_size - 5)]
)
def test_a_damaged_source_file_is_a_storage_error(tmp_path, damage):
    corpus = open_from(tmp_path)
    damage(next((tmp_path / "tiny_reviews").rglob("*train.tfrecord*")))
    with pytest.raises(StorageError, match=r"'train' of tiny_reviews could not be read .* prepare it again"):
        list(corpus.reviews("train"))
    assert len(texts_of(open_from(tmp_path), "test")) == 10


@pytest.mark.slow
def test_sample_reviews_are_prepared_once_by_two_processes_at_once(tmp_path, finished):
    cache, both = tmp_path / "cache", []
    for name in ("one", "other"):
        run = shutil.copytree(finished, tmp_path / name)
        start = command({"workdir": run, "cache_dir": cache})
        both.append(popen(start, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    corpus = open_corpus(name="sample_reviews", data_dir="/nowhere", cache_dir=str(cache))
    assert corpus.sources
    # Its name has the sizes and times of these files: both have read the same.
    (stores,) = cache.glob("sample_reviews-1.0.0-*")
    assert list(stores.glob("train*"))
    assert corpus.split_sizes == {"train": 4000, "validation": 1000, "test": 1000}
    assert [len(texts) for texts, _ in corpus.reviews("train")] == [1024, 1024, 1024, 928]
    assert not list(tmp_path.rglob("*incomplete*"))


def test_sample_reviews_need_a_cache_folder_that_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StorageError, match=r"sample_reviews could not be prepared in .*file/cache.* --cache_dir"
    ):
        open_corpus(name="sample_reviews", data_dir=None, cache_dir=str(tmp_path / "file" / "cache"))


@pytest.fixture(scope="module")
def few_samples(tmp_path_factory):
    """A cache with `sample_reviews` prepared, while there are but a few of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_reviews, "SPLITS", {"train": (0, 9), "test": (2, 5)})
        folder = tmp_path_factory.mktemp("samples")
        open_samples(folder)
        yield folder


@pytest.fixture(scope="module")
def few_test_texts(few_samples):
    """The texts of its test split."""
    return texts_of(open_samples(few_samples), "test")


def open_samples(cache):
    return open_corpus(name="sample_reviews", data_dir=None, cache_dir=str(cache))


ODD_NAMES = ["[x]", "*", "? 'a\"", "gs:", "back\\slash", "~", "Größe {a,b}"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_folder_of_prepared_datasets_may_be_called_anything(data_dir, tmp_path, name):
    for folder in (tmp_path / name, tmp_path / "x"):
        shutil.copytree(data_dir / "tiny_reviews", folder / "tiny_reviews")
    before = tree(tmp_path)
    corpus = open_from(tmp_path / name)
    assert len(texts_of(corpus, "train")) == 100 and tree(tmp_path) == before
    assert {pathlib.Path(path).parents[2] for path, _, _ in corpus.sources} == {tmp_path / name}


def test_preparing_in_a_folder_of_an_odd_name_touches_no_other_folder(tmp_path):
    left = tmp_path / "x" / "tiny_reviews" / "1.2.3" / f"incomplete.{'0' * 32}.left"
    left.parent.mkdir(parents=True)
    left.write_text("of another process")
    for name in ("*", "[x]"):
        assert len(texts_of(open_from(tmp_path / name), "train")) == 100
    assert tree(tmp_path / "x").keys() == {left, left.parent, left.parent.parent}


def test_sample_reviews_are_prepared_in_a_folder_of_an_odd_name(few_samples, tmp_path):
    (tmp_path / "x").mkdir()
    assert len(texts_of(open_samples(tmp_path / "[x] *"), "test")) == 5
    assert {path.name for path in tmp_path.iterdir()} == {"x", "[x] *"} and not list(
        (tmp_path / "x").iterdir()
    )


def garbage(path):
    path.write_bytes(b"\0garbage{" * 100)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replaced_by(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


pipe, folder, endless = (
    replaced_by(make) for make in (os.mkfifo, pathlib.Path.mkdir, lambda path: path.symlink_to("/dev/zero"))
)
DAMAGES = [
    *(("dataset_info.json", damage) for damage in (garbage, pathlib.Path.unlink, pipe, folder, endless)),
    *(("dataset_info.json", lambda path, text=text: path.write_text(text)) for text in ("", "{}")),
    *(("features.json", damage) for damage in (garbage, pathlib.Path.unlink)),
    ("*-test.*", cut),
    *(
        pytest.param("*-test.*", damage, marks=pytest.mark.slow)
        for damage in (garbage, pathlib.Path.unlink, flip, pipe, endless, lambda path: path.write_bytes(b""))
    ),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_damaged_sample_reviews_are_prepared_again(
    few_samples, few_test_texts, tmp_path, caplog, name, damage
):
    cache = shutil.copytree(few_samples, tmp_path / "cache")
    damage(next((cache / "sample_reviews" / "1.0.0").glob(name)))
    assert texts_of(open_samples(cache), "test") == few_test_texts != []
    if name != "features.json":
        assert "it is prepared again" in caplog.text


@pytest.mark.parametrize("name", ["sample_reviews", "sample_reviews/1.0.0"])
def test_a_link_in_place_of_sample_reviews_is_moved_aside(few_samples, tmp_path, name):
    place, outside = tmp_path / "cache" / name, tmp_path / "outside"
    outside.mkdir()
    (outside / "notes.txt").write_text("mine")
    place.parent.mkdir(parents=True)
    place.symlink_to(outside / "notes.txt")
    assert open_samples(tmp_path / "cache").split_sizes["test"] == 5
    assert [path.read_text() for path in outside.iterdir()] == ["mine"]
    (aside,) = place.parent.glob("*.aside")
    assert aside.is_symlink()


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}", "\0"])
@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_damaged_dataset_in_data_dir_is_named_and_stays(data_dir, tmp_path, name, text):
    shutil.copytree(data_dir / "tiny_reviews", tmp_path / "tiny_reviews")
    (tmp_path / "tiny_reviews" / "1.2.3" / name).write_text(text)
    before = tree(tmp_path)
    try:
        list(open_from(tmp_path).reviews("train"))
    except InputError as error:
        assert re.search(r"tiny_reviews.* delete it", str(error)) and "\n" not in str(error)
        assert "/proc/self" not in str(error)
    else:
        assert name == "features.json", "which is not needed where the code is known"
    assert tree(tmp_path) == before


def test_a_damaged_dataset_in_data_dir_is_prepared_again_once_it_is_deleted(data_dir, tmp_path):
    shutil.copytree(data_dir / "tiny_reviews", tmp_path / "tiny_reviews")
    (tmp_path / "tiny_reviews" / "1.2.3" / "dataset_info.json").write_text("{")
    with pytest.raises(InputError) as error:
        open_from(tmp_path)
    shutil.rmtree(re.search(r"if (\S+) is damaged, delete it", str(error.value))[1])
    assert len(texts_of(open_from(tmp_path), "train")) == 100


@pytest.mark.parametrize(
    "name", ["", "tiny_reviews", "tiny_reviews/1.2.3", "tiny_reviews/1.2.3/dataset_info.json"]
)
def test_an_unreadable_dataset_is_not_taken_for_missing(data_dir, tmp_path, name):
    shutil.copytree(data_dir / "tiny_reviews", tmp_path / "data" / "tiny_reviews")
    path = tmp_path / "data" / name
    mode = path.stat().st_mode
    path.chmod(0)
    with (
        without_privileges(),
        pytest.raises(StorageError, match=r"tiny_reviews .*Permission denied") as error,
    ):
        open_from(tmp_path / "data")
    assert "delete" not in str(error.value) and "/proc/self" not in str(error.value)
    path.chmod(mode)
    assert len(texts_of(open_from(tmp_path / "data"), "train")) == 100


def test_a_user_without_a_home_must_name_the_folder_of_prepared_datasets(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "DATA_DIR", "~nobody-at-all/tensorflow_datasets")
    with pytest.raises(InputError, match=r"the home of an unknown user.*--data_dir"):
        open_corpus(name="tiny_reviews", data_dir=None, cache_dir=str(tmp_path))


@pytest.mark.skipif(not os.environ.get("TFDS_DATA_DIR"), reason="needs real IMDB: set TFDS_DATA_DIR")
def test_imdb_opens_from_where_tfds_keeps_it(tmp_path):
    corpus = open_corpus(name="imdb_reviews", data_dir=None, cache_dir=str(tmp_path))
    assert (corpus.examples("train"), corpus.examples("train[:90%]"), corpus.examples("test[:1920]")) == (
        25_000,
        22_500,
        1920,
    )
    assert texts_of(corpus, "test[:1920]")[1024:1030] == texts_of(corpus, "test[1024:1030]")


def test_without_proc_a_folder_keeps_its_name_and_one_with_a_pattern_is_refused(
    data_dir, tmp_path, monkeypatch
):
    expected = texts_of(open_from(data_dir), "train")
    monkeypatch.setattr(machine, "PROC", tmp_path / "none")
    monkeypatch.delattr(os, "O_PATH")
    monkeypatch.chdir(data_dir.parent)
    assert texts_of(open_from(data_dir.name), "train") == expected
    shutil.copytree(data_dir, tmp_path / "a[b]")
    with pytest.raises(InputError, match=r"Without /proc, a path must hold none of .*a\[b\] does; rename it"):
        open_from(tmp_path / "a[b]")
