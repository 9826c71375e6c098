import concurrent.futures
import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import tracemalloc

import matplotlib
import numpy as np
import pytest
from compare_runs import outcome
from fakes import NoStopRequests, command, tiny
from local_cluster import ROOT
from processes import run as run_forked
from reference_runs import train_to_the_end

from trainer import train
from trainer.data import input_pipeline, store_manifest, stored_array, token_store
from trainer.data.store_manifest import ARRAYS
from trainer.data.stored_array import StoredArray
from trainer.data.vocabulary import Tokenizer
from trainer.errors import InputError, StorageError
from trainer.labels import NEGATIVE_POSITIVE, Classes

REVIEWS = {
    "train": [("a good film", 1), ("", 0), ("Bad, bad film!", 0), ("...", 1), ("a a a", 1)],
    "test[:2]": [("a worse film", 0), ("good", 1)],
}
SPLITS = list(REVIEWS)


class ListedCorpus:
    """A corpus of listed reviews; `during` is called before each batch of one review."""

    name, version, classes = "listed/plain", "1.0.0", NEGATIVE_POSITIVE

    def __init__(
        self, reviews=None, sources=(("/here/listed.tfrecord", 10, 20),), during=lambda split, count: None
    ):
        self.listed, self.sources, self.during = reviews or REVIEWS, sources, during
        self.read = []

    def examples(self, split):
        if split not in self.listed:
            raise InputError(f"no split {split}")
        return len(self.listed[split])

    def reviews(self, split):
        self.read.append(split)
        for count, (text, label) in enumerate(self.listed[split]):
            self.during(split, count)
            yield np.array([text.encode()], object), np.array([label], np.uint8)


def prepare(cache_dir, corpus=None, splits=SPLITS, vocab_size=5, **kwargs):
    return token_store.prepare(
        corpus=corpus or ListedCorpus(),
        splits=splits,
        vocab_size=vocab_size,
        cache_dir=str(cache_dir),
        **kwargs,
    )


def fingerprints(prepared):
    vocabulary, stores = prepared
    return vocabulary.fingerprint, {split: store.fingerprint for split, store in stores.items()}


def files(cache_dir):
    return {str(path.relative_to(cache_dir)) for path in pathlib.Path(cache_dir).rglob("*") if path.is_file()}


def only_folder(cache_dir):
    (folder,) = pathlib.Path(cache_dir).iterdir()
    return folder


@pytest.mark.parametrize(
    "tokenizer", [Tokenizer("characters"), Tokenizer(strip_html=True), Tokenizer("characters", True)]
)
def test_each_way_to_make_tokens_has_its_own_stores(tmp_path, tokenizer):
    texts = {
        split: [(f"<b>{text}</b>", label) for text, label in listed] for split, listed in REVIEWS.items()
    }
    usual = prepare(tmp_path, ListedCorpus(texts), vocab_size=50)
    vocabulary, stores = prepare(tmp_path, ListedCorpus(texts), vocab_size=50, tokenizer=tokenizer)
    assert vocabulary.tokenizer == tokenizer
    assert fingerprints((vocabulary, stores)) != fingerprints(usual)
    assert fingerprints(prepare(tmp_path, ListedCorpus(texts), vocab_size=50)) == fingerprints(usual)


def test_labels_of_other_classes_have_their_own_stores(tmp_path):
    corpus = ListedCorpus()
    _, stores = prepare(tmp_path, corpus)
    flipped = {split: [(text, 1 - label) for text, label in listed] for split, listed in REVIEWS.items()}
    other = ListedCorpus(flipped)
    other.classes = Classes(("positive", "negative"), NEGATIVE_POSITIVE.values[::-1])
    _, others = prepare(tmp_path, other)
    for split in SPLITS:
        assert (others[split].labels[:] == 1 - stores[split].labels[:]).all()


def test_a_store_holds_every_token_of_every_review(tmp_path):
    vocabulary, stores = prepare(tmp_path)
    assert vocabulary.tokens == (b"", b"[UNK]", b"a", b"film", b"bad")
    for split, reviews in REVIEWS.items():
        store = stores[split]
        assert len(store) == len(reviews)
        assert store.labels.tolist() == [label for _, label in reviews]
        token_ids = [
            store.token_ids[start:end].tolist()
            for start, end in zip(store.offsets[:-1], store.offsets[1:], strict=True)
        ]
        assert token_ids == vocabulary.encode([text for text, _ in reviews]).to_list()
    assert stores["train"].lengths[:].tolist() == [3, 0, 3, 0, 3]
    assert (
        stores["train"].lengths[:].dtype,
        stores["train"].offsets.dtype,
        stores["train"].labels.dtype,
    ) == (np.int32, np.int64, np.uint8)


def test_the_vocabulary_comes_from_the_train_split_only(tmp_path):
    vocabulary, _ = prepare(tmp_path, vocab_size=100)
    assert b"worse" not in vocabulary.tokens and b"good" in vocabulary.tokens


@pytest.mark.parametrize(
    ("distinct", "dtype"), [(254, np.uint8), (255, np.uint16), (65_534, np.uint16), (65_535, np.uint32)]
)
def test_token_ids_have_the_smallest_dtype_that_holds_the_vocabulary(tmp_path, distinct, dtype):
    corpus = ListedCorpus({"train": [(" ".join(map(str, range(distinct))), 1)]})
    _, stores = prepare(tmp_path, corpus, ["train"], vocab_size=100_000)
    store = stores["train"]
    assert store.token_ids.dtype == dtype
    assert sorted(store.token_ids[:]) == list(range(2, distinct + 2))


def test_a_corpus_of_empty_reviews_can_be_stored(tmp_path):
    corpus = ListedCorpus({"train": [("", 1), ("...", 0)]})
    for _ in range(2):
        _, stores = prepare(tmp_path, corpus, ["train"])
        assert stores["train"].lengths[:].tolist() == [0, 0]


@contextlib.contextmanager
def without_privileges():
    """Makes file permissions apply to root as well."""
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, fewer = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == 0 == libc.capget(header, fewer)
    fewer[0] &= ~0b110  # drop CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH from the effective set
    assert libc.capset(header, fewer) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


def test_a_built_store_is_opened_without_reading_the_corpus_or_writing(tmp_path):
    built = prepare(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    corpus = ListedCorpus()
    assert fingerprints(prepare(tmp_path, corpus)) == fingerprints(built)
    assert corpus.read == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_arrays_are_read_only(tmp_path):
    _, stores = prepare(tmp_path)
    for name in ARRAYS:
        assert not getattr(stores["train"], name)[0:1].flags.writeable


def resident_file_mib():
    return int(re.search(r"RssFile:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024


def test_tokens_do_not_stay_in_memory_after_they_are_read(tmp_path):
    path = tmp_path / "token_ids.bin"
    path.write_bytes(bytes(64 * 2**20))
    token_ids = StoredArray(path, "<u2", size=64 * 2**20)
    before = resident_file_mib()
    assert sum(token_ids[start : start + 200].sum() for start in range(0, 32 * 2**20, 2**14)) == 0
    assert resident_file_mib() - before < 10


@pytest.fixture
def large_stores(monkeypatch):
    """Makes all stores be read and checked as large ones are."""
    monkeypatch.setattr(stored_array, "IN_MEMORY_BYTES", -1)
    monkeypatch.setattr(token_store, "CHECKED_AT_ONCE_BYTES", -1)


def batches_of(store):
    plan = input_pipeline.BatchPlan(lengths=store.lengths, batch_size=2, seed=0)
    return input_pipeline.train_batches(store=store, plan=plan, max_length=0, first_step=0, last_step=9)


@pytest.mark.parametrize("name", ARRAYS)
def test_a_store_truncated_while_it_is_read_is_named_and_rebuilt(tmp_path, large_stores, name):
    built = fingerprints(prepare(tmp_path))
    _, stores = prepare(tmp_path)
    batches = batches_of(stores["train"])
    next(batches)
    empty(stores["train"].path / f"{name}.bin")
    with pytest.raises(StorageError, match=rf"train(/{name}\.bin)? .* rebuilt"):
        list(batches)
        stores["train"].check(wait=True)
    assert fingerprints(prepare(tmp_path)) == built


@pytest.mark.parametrize("name", ARRAYS)
def test_a_store_overwritten_while_it_is_read_is_detected_and_rebuilt(tmp_path, large_stores, name):
    built = fingerprints(prepare(tmp_path))
    _, stores = prepare(tmp_path)
    stores["train"].check(wait=True)
    os.utime(stores["train"].path / f"{name}.bin", ns=(0, 0))  # two writes may have the same timestamp
    stores["train"].check(wait=True)
    flip(stores["train"].path / f"{name}.bin")
    with pytest.raises(StorageError, match=r"train .* start again: it will be rebuilt"):
        stores["train"].check(wait=True)
    corpus = ListedCorpus()
    assert fingerprints(prepare(tmp_path, corpus)) == built and corpus.read == ["train"]


def test_a_large_store_is_checked_while_it_is_in_use(tmp_path, large_stores):
    prepare(tmp_path)
    flip(only_folder(tmp_path) / "train" / "labels.bin")
    _, stores = prepare(tmp_path)
    with pytest.raises(StorageError, match=r"labels\.bin differs from what was written"):
        stores["train"].check(wait=True)
    with pytest.raises(StorageError):
        next(batches_of(stores["train"]))
    _, stores = prepare(tmp_path)
    stores["train"].check(wait=True)


def test_an_evaluation_ends_only_after_its_store_is_verified(tmp_path, large_stores):
    prepare(tmp_path)
    path = only_folder(tmp_path) / "train" / "labels.bin"
    path.write_bytes(bytes([0, 0, 0, 1, 1]))  # valid labels, but not those that were written
    _, stores = prepare(tmp_path)
    with pytest.raises(StorageError, match=r"labels\.bin differs from what was written"):
        list(input_pipeline.evaluation_batches(store=stores["train"], batch_size=2, max_length=0, examples=5))


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("token_ids", np.full(9, 5, "u1"), "token ids or labels are out of range"),
        ("labels", np.full(5, 2, "u1"), "token ids or labels are out of range"),
        ("offsets", np.array([0, 3, 3, 6, 6, 2**40], "<i8"), "offsets are out of range"),
        ("offsets", np.array([0, 3, 3, 6, 6, -9], "<i8"), "offsets are out of range"),
        ("offsets", np.array([0, 9, 3, 6, 6, 9], "<i8"), "offsets are out of range"),
        ("offsets", np.array([-9, 3, 3, 6, 6, 9], "<i8"), "offsets are out of range"),
    ],
)
def test_no_batch_contains_values_out_of_range(tmp_path, large_stores, monkeypatch, name, content, what):
    # As if the verification were still running.
    monkeypatch.setattr(token_store.TokenStore, "check", lambda self, wait=False: None)
    built = fingerprints(prepare(tmp_path))
    path = only_folder(tmp_path) / "train" / f"{name}.bin"
    assert path.stat().st_size == content.nbytes
    path.write_bytes(content.tobytes())
    _, stores = prepare(tmp_path)
    with pytest.raises(StorageError, match=f"train .* {what}; delete it"):
        list(batches_of(stores["train"]))
    assert fingerprints(prepare(tmp_path)) == built


def test_the_arrays_of_a_large_corpus_are_not_loaded_into_memory(tmp_path):
    examples = 40_000_000
    vocabulary, _ = prepare(tmp_path)
    train = only_folder(tmp_path) / "train"
    sizes = {"token_ids": ("|u1", 0), "offsets": ("<i8", 8 * (examples + 1)), "labels": ("|u1", examples)}
    described = {}
    for name, (dtype, size) in sizes.items():
        (train / f"{name}.bin").unlink()
        (train / f"{name}.bin").touch()
        os.truncate(train / f"{name}.bin", size)  # a sparse file: empty reviews that take no space
        with (train / f"{name}.bin").open("rb") as file:
            described[name] = {
                "dtype": dtype,
                "bytes": size,
                "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            }
    (train / "manifest.json").write_text(
        json.dumps(store_manifest.make(ListedCorpus(), "train", vocabulary, described))
    )
    tracemalloc.start()
    _, stores = prepare(tmp_path)
    plan = input_pipeline.BatchPlan(lengths=stores["train"].lengths, batch_size=64, seed=0)
    ((batch,),) = input_pipeline.train_batches(
        store=stores["train"], plan=plan, max_length=0, first_step=10**9, last_step=10**9 + 1
    )
    assert (len(stores["train"]), batch.token_ids.shape) == (examples, (64, 1))
    stores["train"].check(wait=True)
    assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    tracemalloc.stop()


def test_the_layout_is_as_documented(tmp_path):
    prepare(tmp_path)
    folder = only_folder(tmp_path)
    assert folder.name.startswith("listed%2Fplain-1.0.0-")
    stored = {
        f"{split}/{name}"
        for split in ("train", "test%5B%3A2%5D")
        for name in (*(f"{n}.bin" for n in ARRAYS), "manifest.json")
    }
    assert files(folder) == stored | {"vocabulary.txt", "lock"}


def test_a_new_split_is_added_to_the_same_folder(tmp_path):
    prepare(tmp_path, splits=["train"])
    corpus = ListedCorpus()
    prepare(tmp_path, corpus)
    assert corpus.read == ["test[:2]"]
    only_folder(tmp_path)


def test_an_unknown_split_is_refused_before_anything_is_built(tmp_path):
    with pytest.raises(InputError, match="no split nowhere"):
        prepare(tmp_path, splits=["train", "nowhere"])
    assert files(tmp_path) == set()


def test_the_same_source_files_at_another_path_share_a_store(tmp_path):
    prepare(tmp_path)
    corpus = ListedCorpus(sources=(("/elsewhere/listed.tfrecord", 10, 20),))
    prepare(tmp_path, corpus)
    assert corpus.read == []


@pytest.mark.parametrize(
    "other",
    [
        {"vocab_size": 4},
        {"splits": ["test[:2]"]},
        {"corpus": ListedCorpus(sources=(("/here/listed.tfrecord", 11, 20),))},
        {"corpus": ListedCorpus(sources=(("/here/listed.tfrecord", 10, 21),))},
        {"corpus": ListedCorpus(sources=(("/here/other.tfrecord", 10, 20),))},
    ],
)
def test_other_sources_or_vocabularies_get_another_folder(tmp_path, other):
    prepare(tmp_path)
    prepare(tmp_path, **other)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_fingerprint_depends_on_content_and_not_on_paths_or_times(tmp_path):
    base = fingerprints(prepare(tmp_path / "one"))
    assert (
        fingerprints(
            prepare(tmp_path / "two", ListedCorpus(sources=(("/elsewhere/listed.tfrecord", 10, 99),)))
        )
        == base
    )
    changes = [
        ("a good film!", 0),
        ("a good bad", 1),
        ("a good", 1),
    ]  # another label, another token, another length
    for number, first in enumerate(changes):
        changed = ListedCorpus({**REVIEWS, "test[:2]": [first, *REVIEWS["test[:2]"]]})
        assert (
            fingerprints(prepare(tmp_path / f"changed {number}", changed))[1]["test[:2]"]
            != base[1]["test[:2]"]
        )
    one, other = (fingerprints(prepare(tmp_path / str(size), vocab_size=size)) for size in (90, 91))
    assert one == other and one[1]["train"] != base[1]["train"]


def truncate(path):
    os.truncate(path, path.stat().st_size - 1)


def empty(path):
    os.truncate(path, 0)


def swap_splits(folder):
    one, other = folder / "train", folder / "test%5B%3A2%5D"
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)


def forge(path):
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"fingerprint": "0" * 64}))


def flip(path):
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def replaced_by(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


pipe, folder, endless, loop = (
    replaced_by(make)
    for make in (
        os.mkfifo,
        pathlib.Path.mkdir,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path),
    )
)


def described_as(name, **changes):
    def damage(path):
        manifest = json.loads(path.read_text())
        manifest["files"][name] |= changes
        manifest["fingerprint"] = store_manifest.fingerprint(
            vocabulary=manifest["vocabulary"], arrays=manifest["files"]
        )
        path.write_text(json.dumps(manifest))

    return damage


MANIFESTS = [
    b"[1]",
    b"[" * 60_000,
    b'{"files": ' * 6_000,
    b"1" * 60_000,
    b"\xff",
    b"{" + b" " * 2**22 + b"}",
    b"null",
    b'{"files": 1}',
    b'{"files": {}}',
    b'{"files": {"token_ids": 1, "offsets": 2, "labels": 3}}',
]
DESCRIPTIONS = [
    *(("labels", {"bytes": size}) for size in (-1, 0, 1e3, True, None, "5", [5], 2**70)),
    *(("offsets", {"dtype": dtype}) for dtype in ("<i4", "O", "", None, [1], {"a": 1}, "<f8")),
    *(("token_ids", {"sha256": sha256}) for sha256 in ("", None, 7, "0" * 63, "0" * 64)),
    ("token_ids", {"dtype": "<u2"}),
]
DAMAGES = [
    *(
        (f"train/{name}.bin", damage)
        for name in ARRAYS
        for damage in (truncate, empty, pathlib.Path.unlink, flip, zero, pipe, folder, endless, loop)
    ),
    *(
        ("train/manifest.json", damage)
        for damage in (truncate, empty, pathlib.Path.unlink, forge, pipe, folder, endless, loop)
    ),
    *(
        ("train/manifest.json", lambda path, content=content: path.write_bytes(content))
        for content in MANIFESTS
    ),
    *(("train/manifest.json", described_as(name, **changes)) for name, changes in DESCRIPTIONS),
    *(
        ("vocabulary.txt", damage)
        for damage in (
            *(truncate, empty, pathlib.Path.unlink, pipe, folder, endless, loop),
            lambda path: path.write_bytes(b"\n[UNK]\nof\nit"),
        )
    ),
    ("", swap_splits),
]


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A cache with the store of the listed reviews, and its fingerprints; to be read, not written."""
    cache = tmp_path_factory.mktemp("listed")
    return cache, fingerprints(prepare(cache))


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_damaged_or_mismatched_store_is_rebuilt(listed, tmp_path, caplog, name, damage):
    cache, built = listed
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    assert fingerprints(prepare(tmp_path, whole_corpus := ListedCorpus())) == built
    assert whole_corpus.read == []
    whole = files(tmp_path)
    damage(only_folder(tmp_path) / name)
    assert (
        name == "vocabulary.txt"
        or token_store.damage(only_folder(tmp_path) / "train")
        or damage is swap_splits
    )
    corpus = ListedCorpus()
    assert fingerprints(prepare(tmp_path, corpus)) == built
    assert corpus.read != [] and {path for path in files(tmp_path) if ".aside" not in path} == whole
    assert "rebuilt" in caplog.text or damage is pathlib.Path.unlink or name == "vocabulary.txt"
    prepare(tmp_path, again := ListedCorpus())
    assert again.read == []


def test_a_store_stays_readable_while_another_process_rebuilds_it(tmp_path):
    _, stores = prepare(tmp_path)
    before_rebuild = stores["train"].token_ids[:].tolist()
    truncate(only_folder(tmp_path) / "train" / "labels.bin")
    prepare(tmp_path)
    assert stores["train"].token_ids[:].tolist() == before_rebuild


def test_two_concurrent_builders_produce_one_store(tmp_path):
    both_encode = threading.Barrier(2, timeout=60)

    def wait(split, count):
        if (split, count) == ("train", 1):
            both_encode.wait()

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        prepared = list(pool.map(lambda _: prepare(tmp_path, ListedCorpus(during=wait)), range(2)))
    assert fingerprints(prepared[0]) == fingerprints(prepared[1])
    assert not [name for name in files(tmp_path) if ".tmp" in name]
    inodes = {(stores["train"].path / "token_ids.bin").stat().st_ino for _, stores in prepared}
    assert (
        len(inodes) == 1 and only_folder(tmp_path).joinpath("train", "token_ids.bin").stat().st_ino in inodes
    )


@pytest.mark.slow
def test_leftovers_of_a_killed_builder_are_removed_by_the_next_one(tmp_path):
    code = """
        import os, signal, sys
        sys.path[:0] = ["tests", "scripts"]
        from token_store_test import ListedCorpus, prepare

        def die(split, count):
            if (split, count) == ("test[:2]", 1):
                os.kill(os.getpid(), signal.SIGKILL)

        prepare(sys.argv[1], ListedCorpus(during=die))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    assert run_forked(command, cwd=ROOT, capture_output=True).returncode == -signal.SIGKILL
    assert any(".tmp/" in name for name in files(tmp_path))
    corpus = ListedCorpus()
    prepare(tmp_path, corpus)
    assert corpus.read == ["test[:2]"], "what was published before the kill stays"
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_folder_of_a_running_builder_is_kept(tmp_path):
    prepare(tmp_path, splits=["train"])
    temporary = only_folder(tmp_path) / "x.tmp"
    temporary.mkdir()
    with (temporary / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        prepare(tmp_path)
        assert temporary.exists()


@contextlib.contextmanager
def full_disk(limit):
    """Makes writing a file beyond `limit` bytes fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_a_storage_error_and_leaves_nothing_incomplete(tmp_path):
    corpus = ListedCorpus({"train": [("word " * 5000, 1)] * 3})
    with full_disk(10_000), pytest.raises(StorageError, match="--cache_dir") as error:
        prepare(tmp_path, corpus, ["train"])
    assert str(only_folder(tmp_path)) in str(error.value)
    assert files(only_folder(tmp_path)) == {"vocabulary.txt", "lock"}
    _, stores = prepare(tmp_path, corpus, ["train"])
    assert stores["train"].lengths[:].tolist() == [5000] * 3


def test_a_cache_folder_that_cannot_be_created_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/cache.*--cache_dir"):
        prepare(tmp_path / "file" / "cache")


@pytest.mark.parametrize("name", ["train", "train/manifest.json", "train/token_ids.bin", "vocabulary.txt"])
def test_an_unreadable_store_is_neither_changed_nor_rebuilt(tmp_path, name):
    built = fingerprints(prepare(tmp_path))
    before = {path: path.stat() for path in tmp_path.rglob("*")}
    path = only_folder(tmp_path) / name
    mode = path.stat().st_mode
    path.chmod(0)
    corpus = ListedCorpus()
    with without_privileges(), pytest.raises(StorageError, match=r"\(Permission denied\).*--cache_dir"):
        prepare(tmp_path, corpus)
    path.chmod(mode)
    assert corpus.read == [] and before.keys() == set(tmp_path.rglob("*"))
    assert fingerprints(prepare(tmp_path, corpus)) == built and corpus.read == []


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_a_failing_disk_is_a_storage_error(tmp_path, large_stores, monkeypatch, code):
    def fail(*args):
        raise OSError(code, os.strerror(code))

    prepare(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        _, stores = prepare(tmp_path)
        with pytest.raises(StorageError, match=re.escape(os.strerror(code))):
            stores["train"].check(wait=True)
        with pytest.raises(StorageError, match=re.escape(os.strerror(code))):
            next(batches_of(stores["train"]))
    prepare(tmp_path, again := ListedCorpus())
    assert again.read == []


def test_foreign_files_in_the_cache_are_neither_removed_nor_written(tmp_path):
    outside = tmp_path / "outside"
    for folder in (outside / "train", outside / "x.tmp"):
        folder.mkdir(parents=True)
        for name in ("lock", "manifest.json", "notes.txt"):
            (folder / name).write_text("mine")
    cache = tmp_path / "cache"
    prepare(cache)
    store = only_folder(cache)
    shutil.rmtree(store / "train")
    (store / "train").symlink_to(outside / "train")
    (store / "vocabulary.txt").unlink()
    (store / "vocabulary.txt").symlink_to(outside / "train" / "notes.txt")
    (store / "linked.tmp").symlink_to(outside / "x.tmp")
    shutil.copytree(outside / "x.tmp", store / "notes.tmp")
    (store / "piped.tmp").mkdir()
    os.mkfifo(store / "piped.tmp" / "lock")
    (store / "linked_lock.tmp").mkdir()
    (store / "linked_lock.tmp" / "lock").symlink_to(outside / "made")
    (store / "file.tmp").write_text("mine")
    left = {path for path in store.iterdir() if path.suffix == ".tmp"}
    before = {path: path.stat().st_mtime_ns for path in outside.rglob("*")}
    _, stores = prepare(cache)
    assert stores["train"].path.is_dir() and not stores["train"].path.is_symlink()
    assert {path for path in store.iterdir() if path.suffix == ".tmp"} == left
    assert {path: path.stat().st_mtime_ns for path in outside.rglob("*")} == before
    assert {path.read_text() for path in outside.rglob("*") if path.is_file()} == {"mine"}


def test_a_damaged_store_with_user_files_is_moved_aside(tmp_path, caplog):
    prepare(tmp_path)
    store = only_folder(tmp_path)
    (store / "train" / "notes.txt").write_text("mine")
    truncate(store / "train" / "labels.bin")
    prepare(tmp_path)
    (aside,) = store.glob("train.*.aside")
    assert (aside / "notes.txt").read_text() == "mine" and aside.name in caplog.text


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(path.with_name("made"))])
def test_a_lock_that_is_a_pipe_or_symlink_is_refused(tmp_path, make):
    prepare(tmp_path, splits=["train"])
    lock = only_folder(tmp_path) / "lock"
    lock.unlink()
    make(lock)
    with pytest.raises(StorageError, match="--cache_dir"):
        prepare(tmp_path)
    assert not (lock.parent / "made").exists()


@pytest.mark.parametrize(
    "name", ["a [b]", "*", "?", "'\"", "back\\slash", "Größe", "{a,b}", "~", "%41", "gs:"]
)
def test_a_cache_folder_may_have_any_name(tmp_path, name):
    prepare(tmp_path / "a b")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    folder = tmp_path / name / "cache"
    built = fingerprints(prepare(folder))
    truncate(next(folder.glob("*/train/labels.bin")))
    assert fingerprints(prepare(folder)) == built
    assert before.items() <= {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}.items() | {
        (tmp_path, before.get(tmp_path))
    }


TWO_STARTS = """
import sys
from trainer import main
*arguments, cache_dir = sys.argv
print(main.main(arguments), main.main([*arguments, cache_dir]))
"""
"""In one process, because its imports take as long as all else."""


def test_a_user_without_a_home_must_give_cache_dir_and_can_train_with_it(tmp_path, cache_dir, finished):
    kept = ("PATH", "PYTHONPATH", "TF_XLA_FLAGS")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # else it collects the fonts of the machine again
    unknown = ["unshare", "--user", "--map-user=54321"]
    if subprocess.run([*unknown, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs permission to make a user namespace")
    splits = {"validation_split": "", "monitor": "loss", "test_split": ""}
    given = tiny(tmp_path / "run", "", epochs=1, checkpoint_every_steps=0, **splits)
    completed = subprocess.run(
        [*unknown, sys.executable, "-c", TWO_STARTS, *command(given)[3:], f"--cache_dir={cache_dir}"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.stdout == "2 0\n", completed.stderr
    refused, *rest = completed.stderr.splitlines()
    assert refused.startswith("error: ") and "--cache_dir" in refused
    assert not [line for line in rest if line.startswith("error: ")]
    assert (tmp_path / "run" / "result.json").exists()


def path_of_store(cache_dir, split="train"):
    (path,) = (path for path in pathlib.Path(cache_dir).glob(f"sample*/{split}%*") if path.is_dir())
    return path


@pytest.fixture
def own_cache(cache_dir, finished, tmp_path):
    """A cache with the prepared corpus of the shared one, but without the stores of other tests."""
    return shutil.copytree(cache_dir, tmp_path / "cache", ignore=shutil.ignore_patterns("*-1.0.0-*"))


class TruncatesAFile(NoStopRequests):
    """Truncates a file of the store between two steps, at the loop's 10th check for a signal."""

    def __init__(self, cache_dir, name):
        self.cache_dir, self.name, self.checks = cache_dir, name, 0

    @property
    def received(self):
        self.checks += 1
        if self.checks == 10:
            empty(path_of_store(self.cache_dir) / self.name)
        return False


@pytest.mark.parametrize("name", ["offsets"])
def test_a_run_whose_store_is_truncated_ends_and_resumes_bit_identically(
    tmp_path, own_cache, seldom_saved_outcome, large_stores, name
):
    given = tiny(tmp_path / "run", str(own_cache))
    with pytest.raises(StorageError, match=rf"{name}\.bin"):
        train.run(given, stop_requests=TruncatesAFile(own_cache, f"{name}.bin"))
    train_to_the_end(given)
    assert outcome(tmp_path / "run") == seldom_saved_outcome


@pytest.mark.parametrize("name", ["token_ids"])
def test_a_run_whose_store_is_damaged_between_starts_resumes_bit_identically(
    tmp_path, own_cache, seldom_saved_outcome, caplog, name
):
    given = tiny(tmp_path / "run", str(own_cache))
    train_to_the_end(given | {"epochs": 1})
    flip(path_of_store(own_cache) / f"{name}.bin")
    train_to_the_end(given)
    assert outcome(tmp_path / "run") == seldom_saved_outcome and "it is rebuilt" in caplog.text


def test_a_run_is_not_resumed_on_different_reviews(tmp_path, own_cache):
    given = tiny(tmp_path / "run", str(own_cache))
    train_to_the_end(given | {"epochs": 1})
    store = path_of_store(own_cache)
    flip(store / "labels.bin")
    described_as("labels", sha256=hashlib.sha256((store / "labels.bin").read_bytes()).hexdigest())(
        store / "manifest.json"
    )
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())
    with pytest.raises(InputError, match=r"train.* has changed"):
        train.run(given, stop_requests=NoStopRequests())
    assert sorted((tmp_path / "run" / "checkpoints").iterdir()) == newest
