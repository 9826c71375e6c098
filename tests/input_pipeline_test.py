import hashlib
import itertools
import os
import pathlib
import tempfile

import numpy as np
import pytest
import tensorflow as tf

from trainer.data import input_pipeline, token_store
from trainer.data.corpus import open_corpus
from trainer.data.input_pipeline import BatchPlan, batch_spec, evaluation_batches, train_batches
from trainer.data.stored_array import Lengths, StoredArray
from trainer.data.token_store import TokenStore

SIZES = [(1, 1), (1, 4), (3, 4), (4, 4), (10, 3), (1000, 1), (1000, 64), (4001, 7)]


def make_store(lengths, is_large=False):
    """Review i is `lengths[i]` times the token i + 1; its label is whether i is odd."""
    numbers = np.arange(len(lengths))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    with tempfile.NamedTemporaryFile() as file:
        np.repeat(numbers + 1, lengths).astype(np.uint16).tofile(file)
        file.flush()
        token_ids = StoredArray(pathlib.Path(file.name), "<u2", size=2 * int(offsets[-1]))
    return TokenStore(
        token_ids=token_ids if is_large else token_ids[:],
        offsets=offsets,
        labels=(numbers % 2).astype(np.uint8),
        vocab_size=len(lengths) + 1,
        classes=2,
        path=pathlib.Path("store"),
        fingerprint="",
    )


def random_lengths(count, seed=0):
    return np.random.default_rng(seed).lognormal(5, 0.7, count).astype(np.int32)


def epoch_rows(plan, epoch=0):
    return np.stack([plan.rows(epoch * plan.steps_per_epoch + slot) for slot in range(plan.steps_per_epoch)])


def padding_of_an_epoch(plan):
    return input_pipeline.padded_ratio(plan, steps=plan.steps_per_epoch)


def collect(batches):
    return [tuple(batch) for (batch,) in batches]


def assert_equal_batches(batches, others):
    for values, other_values in zip(itertools.chain(*batches), itertools.chain(*others), strict=True):
        np.testing.assert_array_equal(values, other_values)


@pytest.mark.parametrize(("count", "batch_size"), SIZES)
@pytest.mark.parametrize("epoch", [0, 1, 12_345_678])
def test_every_review_appears_exactly_once_per_epoch(count, batch_size, epoch):
    plan = BatchPlan(lengths=random_lengths(count), batch_size=batch_size, seed=3)
    rows = epoch_rows(plan, epoch)
    assert rows.shape == (-(-count // batch_size), batch_size)
    assert sorted(rows[rows >= 0]) == list(range(count))


@pytest.mark.parametrize(("count", "batch_size"), SIZES)
def test_only_the_last_batch_of_an_epoch_is_short(count, batch_size):
    rows = epoch_rows(BatchPlan(lengths=random_lengths(count), batch_size=batch_size, seed=0))
    assert (rows[:-1] >= 0).all()
    assert set(rows[-1]) - set(range(count)) <= {-1}


def test_the_short_batch_has_short_reviews_in_some_epochs_and_long_ones_in_others():
    plan = BatchPlan(lengths=np.arange(10), batch_size=4, seed=0)
    last = [epoch_rows(plan, epoch)[-1] for epoch in range(60)]
    assert {tuple(sorted(rows[rows >= 0])) for rows in last} == {(0, 1), (4, 5), (8, 9)}


GOLDEN_SMALL = [[8, 7, 9], [4, 5, 6], [0, 2, 3], [1, -1, -1]]
GOLDEN_LARGE = "ad27c41863ad5fbd"


def test_the_order_of_batches_is_pinned():
    small = epoch_rows(BatchPlan(lengths=np.arange(10) // 3, batch_size=3, seed=0)).tolist()
    large = BatchPlan(lengths=np.arange(1000) * 37 % 7, batch_size=2, seed=0)
    digest = hashlib.sha256(
        np.concatenate([epoch_rows(large, epoch) for epoch in (0, 1, 10**6)]).astype("<i8").tobytes()
    ).hexdigest()
    assert (small, digest[:16]) == (GOLDEN_SMALL, GOLDEN_LARGE), (
        "The order of batches changed, by a change here or in TensorFlow's RandomIndexShuffle: a run "
        "that was started before would not resume exactly. Restore the order, or change BATCH_ORDER_ID "
        "so that such a resume is refused, and then these golden values."
    )


@pytest.mark.parametrize("count", [1000, 4000, 25_000, 33_000])
def test_epochs_and_seeds_are_shuffled_independently(count):
    # Reviews of one length in a single batch come in the order of the epoch's permutation.
    plans = [BatchPlan(lengths=np.ones(count, np.int32), batch_size=count, seed=seed) for seed in range(3)]
    permutations = [plan.rows(epoch) for plan in plans for epoch in (0, 1, 2, 3, 1000)]
    correlations = [
        np.corrcoef(one, other)[0, 1]
        for one, other in itertools.combinations([np.arange(count), *permutations], 2)
    ]
    assert abs(np.mean(correlations)) < 0.01
    assert np.abs(correlations).max() < max(0.05, 4 / count**0.5), (
        "more than 4 standard deviations from independence"
    )


def test_every_order_of_the_batches_of_a_window_is_equally_likely():
    plan = BatchPlan(lengths=np.arange(3), batch_size=1, seed=0)
    orders, counts = np.unique(
        [epoch_rows(plan, epoch).ravel() for epoch in range(1200)], axis=0, return_counts=True
    )
    assert len(orders) == 6
    assert (np.abs(counts - 200) < 4 * 200**0.5).all()


def test_every_round_of_batches_has_one_from_each_length_stratum():
    strata, windows = input_pipeline.STRATA, input_pipeline.WINDOW_BATCHES
    rounds = windows // strata
    plan = BatchPlan(lengths=np.arange(windows), batch_size=1, seed=0)
    for epoch in range(20):
        served = (
            epoch_rows(plan, epoch).ravel()[-rounds * strata :].reshape(rounds, strata) * strata // windows
        )
        assert (np.sort(served, axis=1) == np.arange(strata)).all()
    assert len(np.unique(served, axis=0)) == rounds, "each round in a different order"


def test_batches_are_a_function_of_seed_and_step_alone():
    lengths = random_lengths(3000)
    plan, same, other = (BatchPlan(lengths=lengths, batch_size=8, seed=seed) for seed in (5, 5, 6))
    steps = [0, 374, 375, 10**9, 200, 0]
    backwards = {step: same.rows(np.int64(step)) for step in reversed(steps)}
    for step in steps:
        np.testing.assert_array_equal(plan.rows(step), backwards[step])
        assert (plan.rows(step) != other.rows(step)).any()


def test_reviews_of_a_batch_have_similar_lengths():
    lengths = random_lengths(25_000)
    assert padding_of_an_epoch(BatchPlan(lengths=lengths, batch_size=64, seed=0)) < 1.05
    assert padding_of_an_epoch(BatchPlan(lengths=lengths, batch_size=25_000, seed=0)) > 3


def test_reviews_truncated_to_equal_length_are_not_sorted_by_their_full_length():
    uncut, cut = (
        BatchPlan(lengths=np.arange(1, 101), batch_size=5, seed=0, max_length=length) for length in (0, 1)
    )
    of_one_length = BatchPlan(lengths=np.ones(100, np.int32), batch_size=5, seed=0)
    np.testing.assert_array_equal(epoch_rows(cut), epoch_rows(of_one_length))
    assert (epoch_rows(cut) != epoch_rows(uncut)).any()


def test_the_padded_ratio_counts_missing_rows_and_empty_reviews():
    assert padding_of_an_epoch(BatchPlan(lengths=np.array([4, 4, 4]), batch_size=3, seed=0)) == 1
    assert padding_of_an_epoch(BatchPlan(lengths=np.array([4, 2, 0]), batch_size=4, seed=0)) == 16 / 6
    assert padding_of_an_epoch(BatchPlan(lengths=np.array([0, 0]), batch_size=2, seed=0)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("max_length", "longest"), [(0, 9), (9, 9), (4, 4)])
def test_the_longest_review_is_known_as_far_as_it_is_read(monkeypatch, max_length, longest):
    monkeypatch.setattr(input_pipeline, "_LENGTHS_AT_A_TIME", 3)
    for lengths in (np.array([1, 9, 0, 2]), Lengths(np.array([0, 1, 10, 10, 12]))):
        plan = BatchPlan(lengths=lengths, batch_size=2, seed=0, max_length=max_length)
        assert plan.longest == longest


@pytest.mark.skipif(not os.environ.get("TFDS_DATA_DIR"), reason="needs real IMDB: set TFDS_DATA_DIR")
def test_imdb_batches_have_less_than_5_percent_padding(tmp_path):
    corpus = open_corpus(name="imdb_reviews", data_dir=None, cache_dir=str(tmp_path))
    _, stores = token_store.prepare(corpus=corpus, splits=["train"], vocab_size=1000, cache_dir=str(tmp_path))
    for seed in range(3):
        assert (
            padding_of_an_epoch(BatchPlan(lengths=stores["train"].lengths, batch_size=64, seed=seed)) < 1.05
        )


@pytest.mark.parametrize("max_length", [0, 1, 50])
def test_a_batch_holds_the_reviews_of_its_rows(max_length):
    lengths = random_lengths(50)
    lengths[:5] = 0
    store = make_store(lengths)
    plan = BatchPlan(lengths=store.lengths, batch_size=8, seed=0, max_length=max_length)
    batches = collect(
        train_batches(store=store, plan=plan, max_length=max_length, first_step=0, last_step=14)
    )
    assert len(batches) == 14
    for step, (token_ids, batch_lengths, labels, weights, reviews) in enumerate(batches):
        assert reviews == weights.sum()
        assert (token_ids.dtype, batch_lengths.dtype, labels.dtype, weights.dtype) == (
            np.int32,
            np.int32,
            np.float32,
            np.float32,
        )
        assert token_ids.shape == (8, max(1, batch_lengths.max()))
        for row, review in enumerate(plan.rows(step)):
            kept = min(lengths[review], max_length or lengths[review]) if review >= 0 else 0
            np.testing.assert_array_equal(
                token_ids[row], [review + 1] * kept + [0] * (token_ids.shape[1] - kept)
            )
            assert (batch_lengths[row], labels[row], weights[row]) == (
                kept,
                review >= 0 and review % 2,
                review >= 0,
            )


def test_empty_reviews_make_a_batch_of_one_column():
    store = make_store(np.zeros(5, np.int64))
    plan = BatchPlan(lengths=store.lengths, batch_size=4, seed=0)
    batches = collect(train_batches(store=store, plan=plan, max_length=0, first_step=0, last_step=2))
    assert [token_ids.tolist() for token_ids, *_ in batches] == [[[0]] * 4] * 2
    assert [weights.sum() for *_, weights, _ in batches] == [4, 1]


@pytest.mark.parametrize("step", [1, 6, 7, 25])
def test_batches_after_a_resume_equal_those_of_an_uninterrupted_run(step):
    store = make_store(random_lengths(50))
    plan, resumed = (BatchPlan(lengths=store.lengths, batch_size=8, seed=1) for _ in range(2))
    whole = collect(train_batches(store=store, plan=plan, max_length=40, first_step=0, last_step=30))
    rest = collect(train_batches(store=store, plan=resumed, max_length=40, first_step=step, last_step=30))
    assert_equal_batches(rest, whole[step:])


def test_a_step_reads_the_lengths_of_its_window_only():
    lengths, indexed = random_lengths(10_000), []

    class Watched:
        def __len__(self):
            return len(lengths)

        def __getitem__(self, reviews):
            indexed.extend(reviews)
            return lengths[reviews]

    counted, plan = (
        BatchPlan(lengths=lengths, batch_size=8, seed=0, max_length=100, window_batches=5)
        for lengths in (Watched(), lengths)
    )
    np.testing.assert_array_equal(
        [counted.rows(step) for step in range(1000, 1005)], [plan.rows(step) for step in range(1000, 1005)]
    )
    assert len(indexed) == 5 * 8


def test_the_next_batch_of_a_large_corpus_is_prefetched_from_disk(monkeypatch):
    small, store = (
        make_store([0, 3, 0, *random_lengths(47)], is_large=is_large) for is_large in (False, True)
    )
    plan = BatchPlan(lengths=store.lengths, batch_size=8, seed=0, max_length=100)
    read_ahead = []
    monkeypatch.setattr(
        os, "posix_fadvise", lambda file, start, length, advice: read_ahead.append((start // 2, length // 2))
    )

    def batches(store):
        return train_batches(store=store, plan=plan, max_length=100, first_step=0, last_step=7)

    assert len(list(batches(small))) == 7 and read_ahead == []
    for step, _ in enumerate(batches(store)):
        following = (
            [row for row in plan.rows(step + 1) if row >= 0 and store.lengths[row]] if step < 6 else []
        )
        assert read_ahead == [(store.offsets[row], min(store.lengths[row], 100)) for row in following]
        read_ahead.clear()


def test_starting_at_step_one_billion_reads_no_earlier_batches(monkeypatch):
    store = make_store(random_lengths(100))
    plan = BatchPlan(lengths=store.lengths, batch_size=10, seed=0)
    read = []
    rows = plan.rows
    monkeypatch.setattr(plan, "rows", lambda step: read.append(step) or rows(step))
    assert (
        len(
            collect(
                train_batches(store=store, plan=plan, max_length=0, first_step=10**9, last_step=10**9 + 2)
            )
        )
        == 2
    )
    assert read == [10**9, 10**9 + 1]


def test_batches_have_the_shapes_and_dtypes_that_steps_are_compiled_for():
    store = make_store([1, 2, 3])
    plan = BatchPlan(lengths=store.lengths, batch_size=2, seed=0)
    train = train_batches(store=store, plan=plan, max_length=0, first_step=0, last_step=1)
    evaluation = evaluation_batches(store=store, batch_size=2, max_length=0, examples=3)
    for (batch,) in (*train, *evaluation):
        assert all(
            spec.is_compatible_with(tf.constant(values))
            for spec, values in zip(batch_spec(2), batch, strict=True)
        )


@pytest.mark.parametrize(("examples", "batch_size"), [(1, 4), (7, 1), (20, 20), (33, 8), (50, 8)])
def test_an_evaluation_reads_each_of_the_first_reviews_exactly_once(examples, batch_size):
    lengths = random_lengths(50)
    lengths[3] = 0
    store = make_store(lengths)
    batches = collect(
        evaluation_batches(store=store, batch_size=batch_size, max_length=30, examples=examples)
    )
    assert all(
        token_ids.shape == (batch_size, max(1, row_lengths.max())) for token_ids, row_lengths, *_ in batches
    )
    row_lengths, labels, weights = (np.concatenate([batch[part] for batch in batches]) for part in (1, 2, 3))
    assert weights.tolist() == [1] * examples + [0] * (len(weights) - examples)
    assert row_lengths[weights == 1].tolist() == sorted(np.minimum(lengths[:examples], 30))
    first_tokens = np.concatenate([token_ids[:, 0] for token_ids, *_ in batches])
    reviews = np.where(row_lengths > 0, first_tokens - 1, 3)[weights == 1]
    assert (
        sorted(reviews) == sorted(range(examples)) if examples > 3 else set(reviews) <= set(range(examples))
    )
    assert labels[weights == 1].tolist() == (reviews % 2).tolist()
    assert not labels[weights == 0].any() and not row_lengths[weights == 0].any()


@pytest.mark.parametrize("replicas", [2, 3, 4, 9])
def test_the_slices_of_the_replicas_add_up_to_the_batch(replicas):
    store = make_store(random_lengths(50))
    plan = BatchPlan(lengths=store.lengths, batch_size=8, seed=0)
    kwargs = {"store": store, "plan": plan, "max_length": 40, "first_step": 5, "last_step": 9}
    for (whole,), slices in zip(
        train_batches(**kwargs),
        train_batches(**kwargs, replicas=replicas, local=range(replicas)),
        strict=True,
    ):
        assert {len(part.lengths) for part in slices} == {-(-8 // replicas)}
        assert {float(part.reviews) for part in slices} == {whole.weights.sum()}
        for name in ("lengths", "labels", "weights"):
            joined = np.concatenate([getattr(part, name) for part in slices])
            np.testing.assert_array_equal(joined[:8], getattr(whole, name))
            assert not joined[8:].any()
        firsts = np.concatenate([part.token_ids[:, 0] for part in slices])
        np.testing.assert_array_equal(firsts[:8], whole.token_ids[:, 0])


def test_each_worker_builds_only_its_own_slices():
    store = make_store(random_lengths(50))
    plan = BatchPlan(lengths=store.lengths, batch_size=8, seed=0)
    kwargs = {"store": store, "plan": plan, "max_length": 0, "first_step": 0, "last_step": 7, "replicas": 4}
    workers = [train_batches(**kwargs, local=local) for local in (range(2), range(2, 4))]
    for whole, first, second in zip(train_batches(**kwargs, local=range(4)), *workers, strict=True):
        assert_equal_batches((*first, *second), whole)


@pytest.mark.parametrize(("examples", "replicas"), [(1, 2), (7, 2), (33, 3), (50, 4)])
def test_an_evaluation_by_several_replicas_reads_each_review_once(examples, replicas):
    store = make_store(random_lengths(50))
    kwargs = {"store": store, "batch_size": 4, "max_length": 0, "examples": examples}
    slices = [
        part
        for batch in evaluation_batches(**kwargs, replicas=replicas, local=range(replicas))
        for part in batch
    ]
    assert {len(part.lengths) for part in slices} == {4}
    one = [part for batch in evaluation_batches(**kwargs) for part in batch]
    read, expected = (
        sorted(np.concatenate([part.token_ids[part.weights > 0, 0] for part in parts]).tolist())
        for parts in (slices, one)
    )
    assert read == expected


def test_step_before_finds_an_earlier_step_from_the_reviews_since():
    plan = BatchPlan(lengths=np.ones(31, np.int32), batch_size=4, seed=0)
    rows = [int(np.sum(plan.rows(step) >= 0)) for step in range(20)]
    for step in range(20):
        for earlier in range(step + 1):
            assert plan.step_before(step, reviews=sum(rows[earlier:step])) == earlier
    assert plan.step_before(3, reviews=10**6) == 0
