"""The step and the loop."""

import json

import numpy as np
import pytest
import tensorflow as tf
from fakes import NoSignals, tiny
from kill_and_resume import outcome, scalars

from trainer import InterruptedBySignalError, train
from trainer.data.input_pipeline import Batch
from trainer.model.classifier import losses
from trainer.start import open_run


@pytest.fixture
def opened(tmp_path, cache_dir, traced_anew):
    return open_run(tiny(tmp_path / "run", cache_dir, dropout=0.0), signals=NoSignals())


def make_batch(*, time=6, weights=(1.0, 1.0, 1.0, 1.0)):
    random = np.random.default_rng(time)
    token_ids = random.integers(1, 50, (4, time)).astype(np.int32)
    lengths = np.full(4, time, np.int32)
    parts = (token_ids, lengths, np.float32([0, 1, 1, 0]), np.float32(weights), np.float32(sum(weights)))
    return Batch(*(tf.constant(part) for part in parts))


def make_train_step(opened, **kwargs):
    """The compiled step of one device, from a batch to its loss and the gradients' norm."""
    step = train.make_train_step(opened.state, opened.replicas, batch_size=4, **kwargs)
    return lambda batch: step((batch,), 0.0).numpy()[:2]


def test_a_step_is_that_of_a_plain_adam(opened):
    state = opened.state
    before = [weight.numpy().astype(np.float64) for weight in state.model.trainable_variables]
    batch = make_batch()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(losses(state.model(batch.token_ids, batch.lengths), batch.labels))
    gradients = tape.gradient(loss, [variable.value for variable in state.model.trainable_variables])
    gradients = [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]
    reported_loss, norm = make_train_step(opened, clip_norm=0.0)(batch)
    assert float(reported_loss) == pytest.approx(float(loss))
    assert float(norm) == pytest.approx(np.sqrt(sum(np.sum(np.square(gradient)) for gradient in gradients)), rel=1e-5)
    epsilon = 1e-7 / np.sqrt(1 - 0.999)  # Adam's first step is the learning rate in the direction of each gradient's sign
    rate = opened.config.learning_rate
    for weight, old, gradient in zip(state.model.trainable_variables, before, gradients, strict=True):
        np.testing.assert_allclose(weight.numpy(), old - rate * gradient / (np.abs(gradient) + epsilon), rtol=0, atol=2e-3 * rate)
    assert int(state.step) == 1


def test_the_sums_of_a_step_are_exact(opened):
    batch = make_batch(weights=(1.0, 1.0, 1.0, 0.0))
    logits = opened.state.model(batch.token_ids, batch.lengths)
    expected = np.sum(losses(logits, batch.labels).numpy()[:3], dtype=np.float64)
    make_train_step(opened, clip_norm=0.0)(batch)
    loss, correct, reviews, real, padded = opened.state.since_log.numpy()
    assert loss == pytest.approx(expected, rel=1e-6)
    assert correct == np.sum((logits.numpy() > 0)[:3] == np.array([False, True, True]))
    assert (reviews, real, padded) == (3, 24, 24)
    assert opened.state.since_evaluation.numpy().tolist() == opened.state.since_log.numpy().tolist()


def test_a_row_of_weight_zero_has_no_influence(opened, tmp_path, cache_dir):
    other = open_run(tiny(tmp_path / "other", cache_dir, dropout=0.0), signals=NoSignals())
    batch = make_batch(weights=(1.0, 1.0, 1.0, 0.0))
    changed = batch._replace(labels=tf.constant([0.0, 1.0, 1.0, 1.0]))
    make_train_step(opened, clip_norm=0.0)(batch)
    make_train_step(other, clip_norm=0.0)(changed)
    for one, two in zip(opened.state.model.trainable_variables, other.state.model.trainable_variables, strict=True):
        assert one.numpy().tobytes() == two.numpy().tobytes()


def test_gradients_are_clipped_to_their_global_norm(opened):
    seen = []
    opened.state.optimizer.apply = lambda gradients, variables: seen.extend(gradients)
    _, norm = make_train_step(opened, clip_norm=1e-3)(make_batch())
    assert float(norm) > 1e-3
    assert len(seen) == len(opened.state.model.trainable_variables)


def test_the_step_is_traced_once_whatever_the_lengths(opened):
    train_step = train.make_train_step(opened.state, opened.replicas, batch_size=4, clip_norm=0.0)
    for time in (1, 5, 40, 7, 200):
        train_step((make_batch(time=time),), 0.0)
    assert train_step.experimental_get_tracing_count() == 1


def run_tiny(workdir, cache_dir, **settings):
    train.run(tiny(workdir, cache_dir, **settings), signals=NoSignals())
    return json.loads((workdir / "result.json").read_text()), scalars(workdir / "summaries")


def steps_of(points, run, tag):
    return [step for point_run, point_tag, step in points if (point_run, point_tag) == (run, tag)]


def test_logs_evaluations_and_the_ending_come_at_their_steps(tmp_path, cache_dir):
    ending, points = run_tiny(tmp_path / "run", cache_dir, patience=0)
    for tag in ("loss", "accuracy", "gradient_norm", "learning_rate", "padded_ratio", "reviews_per_second"):
        assert steps_of(points, "train", tag) == [3, 6, 9, 12, 15, 18, 21, 24]
    assert steps_of(points, "validation", "loss") == steps_of(points, "validation", "accuracy") == [5, 10, 15, 20]
    assert steps_of(points, "test", "loss") == [ending["best_step"]]
    assert ending["stop_step"] == 24
    assert ending["reason"] == "--epochs=3 done"
    best = min(points["validation", "loss", step][0] for step in (5, 10, 15, 20))
    assert ending["best_metric"] == pytest.approx(best, rel=1e-6)


def test_evaluation_is_once_an_epoch_by_default(tmp_path, cache_dir):
    _, points = run_tiny(tmp_path / "run", cache_dir, eval_every_steps=0, patience=0)
    assert steps_of(points, "validation", "loss") == [8, 16, 24]


def test_without_validation_the_training_metrics_are_judged(tmp_path, cache_dir):
    ending, points = run_tiny(tmp_path / "run", cache_dir, validation_split="", monitor="loss", patience=0)
    assert steps_of(points, "validation", "loss") == []
    assert ending["best_step"] in (5, 10, 15, 20)


def test_when_nothing_is_best_the_latest_is_tested_and_said_so(tmp_path, cache_dir, caplog):
    ending, _ = run_tiny(tmp_path / "run", cache_dir, initial_best=0.0, patience=0)
    assert (ending["best_step"], ending["best_metric"]) == (-1, None)
    assert "latest" in caplog.text
    assert not list((tmp_path / "run" / "best").glob("*.index"))


def test_without_a_test_split_the_ending_has_no_test(tmp_path, cache_dir):
    ending, points = run_tiny(tmp_path / "run", cache_dir, test_split="", epochs=1)
    assert "test" not in ending
    assert steps_of(points, "test", "loss") == []


def test_an_early_stopped_run_says_which_patience_would_continue_it(tmp_path, cache_dir, caplog):
    ending, _ = run_tiny(tmp_path / "run", cache_dir, initial_best=0.0, baseline=0.0, patience=2)
    assert ending["stop_step"] == 10
    assert "--patience=3" in caplog.text
    caplog.clear()
    train.run(tiny(tmp_path / "run", cache_dir, initial_best=0.0, baseline=0.0, patience=2, epochs=9), signals=NoSignals())
    assert "is finished" in caplog.text
    assert "--patience=3" in caplog.text


def test_an_interrupted_ending_is_done_again(tmp_path, cache_dir):
    ending, points = run_tiny(tmp_path / "run", cache_dir)
    (tmp_path / "run" / "result.json").unlink()
    assert run_tiny(tmp_path / "run", cache_dir) == (ending, points)


class SignalAt:
    """A signal that arrives after so many looks."""

    wait_for_a_save = False

    def __init__(self, looks):
        self.looks = looks

    @property
    def received(self):
        self.looks -= 1
        return self.looks < 0

    def take_save_request(self):
        return False

    def end(self, message):
        return InterruptedBySignalError(15, message)


def test_a_signal_between_steps_is_honoured_with_a_save(tmp_path, cache_dir):
    given = tiny(tmp_path / "run", cache_dir, checkpoint_every_steps=0, checkpoint_every_secs=0.0)
    with pytest.raises(InterruptedBySignalError, match="saved at step 3") as error:
        train.run(given, signals=SignalAt(2))
    assert error.value.exit_code == 143
    assert (tmp_path / "run" / "checkpoints" / "ckpt-3.index").exists()


def test_a_signal_in_an_evaluation_abandons_it_and_saves_nothing(tmp_path, cache_dir):
    given = tiny(tmp_path / "run", cache_dir, checkpoint_every_steps=0, checkpoint_every_secs=0.0)
    with pytest.raises(InterruptedBySignalError, match="5 steps will be done again"):
        train.run(given, signals=SignalAt(5))
    assert [path.stem for path in (tmp_path / "run" / "checkpoints").glob("*.index")] == ["ckpt-0"]


class SaveRequestAt(NoSignals):
    """A request to save at each of these looks."""

    def __init__(self, *looks):
        self.looks, self.looked = looks, 0

    def take_save_request(self):
        self.looked += 1
        return self.looked in self.looks


def test_a_save_that_is_asked_for_is_done_at_the_next_step_and_changes_no_bit(tmp_path, cache_dir, twin, caplog):
    given = tiny(tmp_path / "run", cache_dir, checkpoint_every_steps=0, checkpoint_every_secs=0.0, max_to_keep=100)
    train.run(given, signals=SaveRequestAt(1, 5, 7))
    assert [line for line in caplog.messages if line.startswith("Saved")] == [
        f"Saved at step {step}, as SIGUSR1 asks." for step in (1, 5, 7)
    ]
    saved = {int(path.stem.removeprefix("ckpt-")) for path in (tmp_path / "run" / "checkpoints").glob("*.index")}
    assert {1, 5, 7} <= saved
    assert 8 not in saved
    after = outcome(tmp_path / "run")
    for name in ("newest", "state", "best", "result.json"):
        assert after[name] == twin[name]
