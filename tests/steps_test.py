"""The compiled steps."""

import threading
import types

import compiled_steps
import numpy as np
import pytest
import tensorflow as tf
from fakes import NoStopRequests, corpus_of, tiny
from reference_runs import SELDOM

import trainer.session
from trainer import build, classes, machine, metrics, prepare, steps, train
from trainer.data.input_pipeline import Batch, evaluation_batches
from trainer.model.classifier import Classifier, Dimensions
from trainer.run.distribution import Replicas
from trainer.schedule import Schedule
from trainer.session import open_session


@pytest.fixture(scope="module")
def model():
    return Classifier(Dimensions(50, 8, 8, 8), dropout=0.5, seed=0)


@pytest.fixture
def session(tmp_path, cache_dir):
    return open_session(tiny(tmp_path / "run", cache_dir, dropout=0.0), stop_requests=NoStopRequests())


def make_batch(*, time=6, weights=(1.0, 1.0, 1.0, 1.0)):
    random = np.random.default_rng(time)
    token_ids = random.integers(1, 50, (4, time)).astype(np.int32)
    lengths = np.full(4, time, np.int32)
    parts = (token_ids, lengths, np.float32([0, 1, 1, 0]), np.float32(weights), np.float32(sum(weights)))
    return Batch(*(tf.constant(part) for part in parts))


def make_train_step(session, *, clip_norm, is_shared=True):
    """The compiled step of one device, from a batch to its loss and the gradients' norm.

    One that is not shared with other sessions is traced anew, and sees what a test has replaced.
    """
    make = train.make_train_step if is_shared else steps.make_train_step
    step = make(session.state, session.replicas, batch_size=4, updates=steps.Updates(clip_norm=clip_norm))
    return lambda batch: step((batch,), 0.0).numpy()[:2]


def make_eval_step(model, **options):
    """The compiled evaluation of one device, which models of a kind share."""
    return trainer.session.make_eval_step(model, Replicas(), **options)


def test_a_step_is_one_step_of_plain_adam(session):
    state = session.state
    before = [weight.numpy().astype(np.float64) for weight in state.model.trainable_variables]
    batch = make_batch()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(classes.losses(state.model(batch.token_ids, batch.lengths), batch.labels))
    gradients = tape.gradient(loss, [variable.value for variable in state.model.trainable_variables])
    gradients = [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]
    reported_loss, norm = make_train_step(session, clip_norm=0.0)(batch)
    assert float(reported_loss) == pytest.approx(float(loss))
    assert float(norm) == pytest.approx(
        np.sqrt(sum(np.sum(np.square(gradient)) for gradient in gradients)), rel=1e-5
    )
    # Adam's first step is the learning rate in the direction of each gradient's sign.
    epsilon = 1e-7 / np.sqrt(1 - 0.999)
    rate = session.config.learning_rate
    for weight, old, gradient in zip(state.model.trainable_variables, before, gradients, strict=True):
        np.testing.assert_allclose(
            weight.numpy(), old - rate * gradient / (np.abs(gradient) + epsilon), rtol=0, atol=2e-3 * rate
        )
    assert int(state.step) == 1


def test_the_sums_of_a_step_are_exact(session):
    batch = make_batch(weights=(1.0, 1.0, 1.0, 0.0))
    logits = session.state.model(batch.token_ids, batch.lengths)
    expected = np.sum(classes.losses(logits, batch.labels).numpy()[:3], dtype=np.float64)
    reported_loss, _ = make_train_step(session, clip_norm=0.0)(batch)
    assert float(reported_loss) == pytest.approx(expected / 3, rel=1e-6)
    loss, correct, reviews, real, padded = session.state.since_log.numpy()
    assert loss == pytest.approx(expected, rel=1e-6)
    assert correct == np.sum((logits.numpy() > 0)[:3] == np.array([False, True, True]))
    assert (reviews, real, padded) == (3, 24, 24)
    assert session.state.since_evaluation.numpy().tolist() == session.state.since_log.numpy().tolist()


def test_a_row_of_weight_zero_has_no_effect(session, tmp_path, cache_dir):
    other = open_session(tiny(tmp_path / "other", cache_dir, dropout=0.0), stop_requests=NoStopRequests())
    batch = make_batch(weights=(1.0, 1.0, 1.0, 0.0))
    changed = batch._replace(labels=tf.constant([0.0, 1.0, 1.0, 1.0]))
    make_train_step(session, clip_norm=0.0)(batch)
    make_train_step(other, clip_norm=0.0)(changed)
    for one, two in zip(
        session.state.model.trainable_variables, other.state.model.trainable_variables, strict=True
    ):
        assert one.numpy().tobytes() == two.numpy().tobytes()


def test_gradients_are_clipped_by_their_global_norm(session):
    seen = []
    session.state.optimizer.apply = lambda gradients, variables: seen.extend(gradients)
    _, norm = make_train_step(session, clip_norm=1e-3, is_shared=False)(make_batch())
    assert float(norm) > 1e-3
    assert len(seen) == len(session.state.model.trainable_variables)


def test_the_step_is_traced_once_whatever_the_lengths(session, monkeypatch):
    traces, of_step = [], steps._gradients
    monkeypatch.setattr(steps, "_gradients", lambda *args: traces.append(args) or of_step(*args))
    train_step = steps.make_train_step(session.state, session.replicas, batch_size=4)
    for time in (1, 5, 40, 7, 200):
        train_step((make_batch(time=time),), 0.0)
    assert len(traces) == 1
    operations = train_step.get_concrete_function().graph.get_operations()
    loops = [operation for operation in operations if operation.type in ("While", "StatelessWhile")]
    assert len(loops) == 4, "the graph recomputes segments, though the longest review of the run is short"


def test_only_models_of_one_kind_share_a_step_among_the_tests():
    differences = (
        {},
        {"pooling": ("max",)},
        {"pooling": ("mean",)},
        {"ngrams": 1, "ngram_buckets": 16},
        {"ngrams": 2, "ngram_buckets": 16},
    )
    kinds = [
        compiled_steps._kind(Classifier(Dimensions(50, 8, 8, 8, **more), dropout=0.5, seed=0), Replicas())
        for more in (*differences, {})
    ]
    assert len(set(kinds)) == len(differences)
    assert kinds[-1] == kinds[0]


def batches(examples, classes=2):
    random = np.random.default_rng(0)
    for start in range(0, examples, steps.EVALUATION_BATCH_SIZE):
        rows = min(steps.EVALUATION_BATCH_SIZE, examples - start)
        weights = (np.arange(steps.EVALUATION_BATCH_SIZE) < rows).astype(np.float32)
        token_ids = random.integers(1, 50, (steps.EVALUATION_BATCH_SIZE, 5)).astype(np.int32)
        labels = random.integers(0, classes, steps.EVALUATION_BATCH_SIZE).astype(np.float32)
        lengths = np.where(weights > 0, 5, 0).astype(np.int32)
        yield (
            Batch(
                *(
                    tf.constant(part)
                    for part in (token_ids, lengths, labels, weights, np.float32(weights.sum()))
                )
            ),
        )


def test_each_review_counts_once_when_the_last_batch_is_incomplete(model):
    logits, labels = [], []
    for (batch,) in batches(300):
        real = batch.weights.numpy() > 0
        logits.append(model(batch.token_ids, batch.lengths).numpy()[real])
        labels.append(batch.labels.numpy()[real])
    logits, labels = np.concatenate(logits), np.concatenate(labels)
    evaluated = steps.evaluate(
        make_eval_step(model), batches(300), stop=lambda: False, abandon=KeyboardInterrupt
    )
    assert evaluated.reviews == 300
    assert evaluated.accuracy == np.mean((logits > 0) == (labels > 0.5))
    assert evaluated.loss == pytest.approx(
        np.mean(classes.losses(logits, labels).numpy(), dtype=np.float64), rel=1e-6
    )


def test_evaluating_several_batches_at_a_time_changes_no_bit(model, monkeypatch):
    at_work, step = threading.Barrier(2, timeout=60), steps.make_eval_step(model, Replicas())
    options = {"stop": lambda: False, "abandon": KeyboardInterrupt}

    def meeting(*arguments):
        at_work.wait()
        return step(*arguments)

    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    one_at_a_time = steps.evaluate(step, batches(1000), **options)
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    assert steps.evaluate(meeting, batches(1000), **options) == one_at_a_time


def test_replicas_evaluate_one_batch_at_a_time(model, monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    threads, step = set(), steps.make_eval_step(model, Replicas())

    def noting(*arguments):
        threads.add(threading.current_thread())
        return step(*arguments)

    steps.evaluate(noting, batches(600), stop=lambda: False, abandon=KeyboardInterrupt, replicas=2)
    assert threads == {threading.current_thread()}


def test_evaluation_can_be_abandoned_between_two_batches(model):
    checks = []

    def stop():
        checks.append(1)
        return len(checks) == 2

    with pytest.raises(KeyboardInterrupt):
        steps.evaluate(make_eval_step(model), batches(1000), stop=stop, abandon=KeyboardInterrupt)
    assert len(checks) == 2


NAMES = ("a", "b", "c")


@pytest.fixture
def session_of_three(tmp_path, cache_dir, monkeypatch):
    monkeypatch.setattr(build, "open_corpus", lambda config: corpus_of(*NAMES))
    return open_session(tiny(tmp_path / "run", cache_dir, dropout=0.0), stop_requests=NoStopRequests())


def batch_of_three():
    return make_batch(weights=(1.0, 1.0, 1.0, 0.0))._replace(labels=tf.constant([0.0, 2.0, 1.0, 2.0]))


def test_the_sums_of_a_step_of_three_classes_are_exact(session_of_three):
    batch, state = batch_of_three(), session_of_three.state
    logits = state.model(batch.token_ids, batch.lengths).numpy().astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(shares[[0, 1, 2], [0, 2, 1]]).sum()
    reported_loss, _ = make_train_step(session_of_three, clip_norm=0.0)(batch)
    assert float(reported_loss) == pytest.approx(expected / 3, rel=1e-6)
    loss, correct, reviews, *_ = state.since_log.numpy()
    assert (loss, reviews) == (pytest.approx(expected, rel=1e-6), 3)
    assert correct == np.sum(logits.argmax(axis=1)[:3] == np.array([0, 2, 1]))


def test_class_weights_multiply_the_trained_loss_and_leave_the_metrics(session_of_three):
    batch, state = batch_of_three(), session_of_three.state
    losses = classes.exact_losses(state.model(batch.token_ids, batch.lengths).numpy(), batch.labels.numpy())
    options = {"batch_size": 4, "class_weights": (1.0, 3.0, 0.5)}
    step = train.make_train_step(state, session_of_three.replicas, **options)
    reported_loss = step((batch,), 0.0).numpy()[0]
    assert reported_loss == pytest.approx((losses[0] + 0.5 * losses[1] + 3.0 * losses[2]) / 3, rel=1e-6)
    assert state.since_log.numpy()[0] == pytest.approx(losses[:3].sum(), rel=1e-6)


@pytest.mark.slow
def test_a_class_of_greater_weight_is_predicted_more_often(tmp_path, cache_dir, monkeypatch):
    monkeypatch.setattr(build, "open_corpus", lambda config: corpus_of(*NAMES))
    predicted = {}
    for weight in (0.2, 5.0):
        settings = {**SELDOM, "eval_every_steps": 0, "class_weights": f"b={weight}", "sample_text": ()}
        given = tiny(tmp_path / str(weight), cache_dir, **settings)
        run = open_session(given, stop_requests=NoStopRequests())
        prepare.prepare_directory(run)
        train.train_and_evaluate(run)
        store = run.data.stores["validation[:20]"]
        (batch,) = evaluation_batches(store=store, batch_size=20, max_length=0, examples=20)
        logits = run.state.model(batch[0].token_ids, batch[0].lengths).numpy()
        predicted[weight] = int(np.sum(logits.argmax(axis=1) == 1))
    assert predicted[5.0] > predicted[0.2]


@pytest.mark.parametrize("confusion_of", [0, 2])
def test_an_evaluation_may_compute_the_exact_auc_and_keeps_the_bits_of_the_others(confusion_of):
    model = Classifier(Dimensions(50, 8, 8, 8, 1), dropout=0.5, seed=0)
    options = {"stop": lambda: False, "abandon": KeyboardInterrupt}
    without = steps.evaluate(make_eval_step(model, confusion_of=confusion_of), batches(300, 2), **options)
    step = make_eval_step(model, confusion_of=confusion_of, with_scores=True)
    evaluated = steps.evaluate(step, batches(300, 2), **options, scored=steps.EVALUATION_BATCH_SIZE)
    assert evaluated._replace(auc=None) == without
    scores, positive = [], []
    for (batch,) in batches(300, 2):
        real = batch.weights.numpy() > 0
        scores += model(batch.token_ids, batch.lengths).numpy()[real].tolist()
        positive += (batch.labels.numpy()[real] > 0).tolist()
    pairs = [
        (a > b) + (a == b) / 2
        for a, p in zip(scores, positive, strict=True)
        if p
        for b, q in zip(scores, positive, strict=True)
        if not q
    ]
    assert evaluated.auc == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


@pytest.mark.parametrize("count", [2, 3])
def test_an_evaluation_may_sum_the_confusion_matrix_and_keeps_the_bits_of_loss_and_accuracy(count):
    logits = 1 if count == 2 else count
    model = Classifier(Dimensions(50, 8, 8, 8, logits), dropout=0.5, seed=0)
    options = {"stop": lambda: False, "abandon": KeyboardInterrupt}
    without = steps.evaluate(make_eval_step(model), batches(300, count), **options)
    step = make_eval_step(model, confusion_of=count)
    evaluated = steps.evaluate(step, batches(300, count), **options)
    assert without.f1 is None
    assert evaluated._replace(f1=None) == without
    confusion = np.zeros((count, count), int)
    for (batch,) in batches(300, count):
        real = batch.weights.numpy() > 0
        decisions = classes.decide(model(batch.token_ids, batch.lengths).numpy())
        np.add.at(confusion, (batch.labels.numpy().astype(int)[real], decisions[real]), 1)
    assert confusion.sum() == 300
    assert evaluated.f1 == metrics.f1(confusion.tolist())
    assert 0.0 < evaluated.f1 < 1.0


def open_with(tmp_path, cache_dir, name, **settings):
    given = tiny(tmp_path / name, cache_dir, **{"dropout": 0.0, **settings})
    return open_session(given, stop_requests=NoStopRequests())


def halves(batch):
    return [
        Batch(*(part[2 * half : 2 * half + 2] for part in batch[:4]), tf.constant(2.0)) for half in (0, 1)
    ]


def weights(model):
    return [weight.numpy() for weight in model.trainable_variables]


def test_two_accumulated_halves_change_the_weights_as_the_whole_batch_does(tmp_path, cache_dir, session):
    make_train_step(session, clip_norm=0.0)(make_batch())
    other = open_with(tmp_path, cache_dir, "other", accumulate=2)
    before = weights(other.state.model)
    step = steps.make_train_step(
        other.state, other.replicas, batch_size=2, updates=steps.Updates(accumulate=2)
    )
    for half in halves(make_batch()):
        assert all(map(np.array_equal, weights(other.state.model), before))
        step((half,), 0.0)
    for ours, expected in zip(weights(other.state.model), weights(session.state.model), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert not any(np.any(sums.numpy()) for sums in other.state.accumulated)
    assert int(other.state.optimizer.iterations.numpy()) == 1


def test_accumulated_batches_count_by_their_reviews(tmp_path, cache_dir):
    batch = make_batch()
    state = open_with(tmp_path, cache_dir, "run", accumulate=2).state
    model = state.model
    with tf.GradientTape() as tape:
        losses = classes.losses(model(batch.token_ids, batch.lengths), batch.labels)
        loss = (losses[0] + losses[2] + losses[3]) / 3.0
    expected = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    first, second = halves(batch)
    first = first._replace(weights=tf.constant([1.0, 0.0]), reviews=tf.constant(1.0))
    seen = []
    state.optimizer.apply = lambda gradients, variables: seen.extend(gradients)
    replicas = Replicas()
    with pytest.MonkeyPatch.context() as patch:
        untraced = types.SimpleNamespace
        patch.setattr(
            tf, "function", lambda *_, **__: lambda step: untraced(get_concrete_function=lambda: step)
        )
        step = steps.make_train_step(state, replicas, batch_size=2, updates=steps.Updates(accumulate=2))
    for half in (first, second):
        step((half,), tf.constant(0.0, tf.float64))
    for ours, theirs in zip(seen, expected, strict=True):
        np.testing.assert_allclose(ours, tf.convert_to_tensor(theirs), atol=1e-6)


def test_the_average_follows_the_weights(tmp_path, cache_dir):
    state = open_with(tmp_path, cache_dir, "run", ema_momentum=0.9).state
    replicas = Replicas()
    step = train.make_train_step(state, replicas, batch_size=4, updates=steps.Updates(ema_momentum=0.9))
    expected = [weight.astype(np.float64) for weight in weights(state.model)]
    for number in range(20):
        step((make_batch(),), 0.0)
        momentum = min(0.9, (1 + number) / (10 + number))
        expected = [
            momentum * average + (1 - momentum) * weight
            for average, weight in zip(expected, weights(state.model), strict=True)
        ]
    for ours, theirs in zip(weights(state.average), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert state.evaluated is state.average


NGRAMS = {"ngrams": 2, "ngram_buckets": 512}


def test_the_lstm_learns_as_if_there_were_no_ngrams(tmp_path, cache_dir, session):
    other = open_with(tmp_path, cache_dir, "other", **NGRAMS)
    make_train_step(session, clip_norm=0.0)(make_batch())
    make_train_step(other, clip_norm=0.0)(make_batch())
    for ours, expected in zip(weights(other.state.model), weights(session.state.model), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_a_step_moves_the_ngrams_of_a_review_by_its_own_error(tmp_path, cache_dir):
    other = open_with(tmp_path, cache_dir, "other", **NGRAMS)
    ngrams, batch = other.state.model.ngrams, make_batch()
    assert np.any(ngrams.log_ratios.numpy()), "a new run has counted them"
    features = ngrams.features(batch.token_ids, batch.lengths)
    expected = np.zeros([512, 1])
    errors = 0.5 - batch.labels.numpy()  # the weights are zeros
    np.add.at(expected, features.buckets.numpy(), features.values * errors[features.rows][:, None])
    make_train_step(other, clip_norm=0.0)(batch)
    np.testing.assert_allclose(ngrams.weights.numpy(), -16.0 * expected, atol=1e-5)


def test_the_metrics_of_a_step_are_those_of_the_joined_logits(tmp_path, cache_dir):
    other = open_with(tmp_path, cache_dir, "other", **NGRAMS)
    step, batch = make_train_step(other, clip_norm=0.0), make_batch()
    for _ in range(3):
        logits = other.state.model(batch.token_ids, batch.lengths)
        other.state.reset_since_evaluation()
        step(batch)
    expected = np.sum(classes.losses(logits, batch.labels).numpy(), dtype=np.float64)
    assert other.state.since_evaluation.numpy()[0] == pytest.approx(expected, rel=1e-5)


def test_the_schedule_is_a_factor_of_both_learning_rates(tmp_path, cache_dir):
    other = open_with(tmp_path, cache_dir, "other", **NGRAMS)
    updates = steps.Updates(learning_rate=0.2, schedule=Schedule("linear", steps=4))
    step = steps.make_train_step(other.state, other.replicas, batch_size=4, updates=updates)
    moved, before = [], other.state.model.ngrams.weights.numpy()
    for expected in (0.2, 0.15, 0.1, 0.05, 0.0):
        step((make_batch(),), 0.0)
        assert float(other.state.optimizer.learning_rate.numpy()) == pytest.approx(expected)
        after = other.state.model.ngrams.weights.numpy()
        moved.append(np.any(after != before))
        before = after
    assert moved == [True, True, True, True, False]
