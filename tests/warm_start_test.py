"""Starting a run with the weights of another one."""

import shutil

import numpy as np
import pytest
from fakes import EVERYTHING, NoStopRequests, corpus_of, tiny

from trainer import build, prepare, session, train, trained_model
from trainer.errors import InputError
from trainer.run import checkpoint_files, checkpoint_reading


def start_from(tmp_path, cache_dir, source, **settings):
    """Starts a run from `source`, up to its step 0 commit; returns settings, checkpoint values and state."""
    given = tiny(tmp_path / "new", cache_dir, init_from=str(source), epochs=1, **settings)
    run = session.open_session(given, stop_requests=NoStopRequests())
    prepare.prepare_directory(run)
    return given, checkpoint_reading.read_values(tmp_path / "new" / "checkpoints" / "ckpt-0"), run.state


def weights(workdir, name):
    trained = trained_model.load({"workdir": str(workdir), "checkpoint": name})
    return [weight.numpy().tobytes() for weight in trained.model.trainable_variables]


def test_a_new_run_may_start_from_the_best_or_any_checkpoint_of_another_run(tmp_path, cache_dir, finished):
    for number, (source, name) in enumerate(
        (
            (finished, "best"),
            (finished / "checkpoints" / "ckpt-23", str(finished / "checkpoints" / "ckpt-23")),
        )
    ):
        _, values, _ = start_from(tmp_path / str(number), cache_dir, source)
        assert weights(
            tmp_path / str(number) / "new", str(tmp_path / str(number) / "new" / "checkpoints" / "ckpt-0")
        ) == weights(finished, name)
        assert (values["step"], values["best_step"], values["best_metric"]) == (0, -1, float("inf"))
        assert values["optimizer/_iterations"] == 0


def test_the_optimizer_and_the_best_metric_are_copied_when_requested(tmp_path, cache_dir, finished):
    source = checkpoint_files.newest_best(finished)
    _, values, state = start_from(
        tmp_path, cache_dir, finished, init_optimizer=True, init_best_metric=True, learning_rate=0.5
    )
    assert values["optimizer/_iterations"] == checkpoint_files.step_of(source)
    assert values["best_metric"] == checkpoint_reading.read_values(source)["best_metric"]
    assert values["optimizer/_learning_rate"] == np.float32(0.5)
    assert any(np.any(slot.numpy()) for slot in state.optimizer.variables[2:])


def test_the_best_metric_of_a_different_monitor_is_refused_before_data_is_prepared(tmp_path, finished):
    cache = tmp_path / "cache"
    message = r"--init_best_metric needs a run that monitors val_accuracy, but .* monitors val_loss"
    with pytest.raises(InputError, match=message):
        start_from(tmp_path, str(cache), finished, init_best_metric=True, monitor="val_accuracy")
    assert not cache.exists()


def test_a_run_killed_before_its_first_step_resumes_with_its_initial_weights(tmp_path, cache_dir, copy):
    given, _, _ = start_from(tmp_path, cache_dir, copy)
    before = weights(tmp_path / "new", "latest")
    shutil.rmtree(copy)
    run = session.open_session(given, stop_requests=NoStopRequests())
    assert [weight.numpy().tobytes() for weight in run.state.model.trainable_variables] == before


def test_a_run_with_checkpoints_ignores_init_from_and_logs_it(copy, cache_dir, caplog):
    train.run(tiny(copy, cache_dir, epochs=4, init_from="nowhere"), stop_requests=NoStopRequests())
    assert "--init_from=nowhere is ignored" in caplog.text


def test_the_source_run_is_not_changed(tmp_path, cache_dir, finished):
    def files():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.rglob("*")}

    before = files()
    start_from(tmp_path, cache_dir, finished)
    assert files() == before


def test_each_weight_of_a_different_shape_is_named(tmp_path, cache_dir, finished):
    with pytest.raises(
        InputError,
        match=r"forward.*kernel is \[8, 32\] there and \[8, 16\] here; .*hidden/kernel is \[16, 8\]",
    ):
        start_from(tmp_path, cache_dir, finished, lstm_units=4)
    assert not (tmp_path / "new" / "checkpoints" / "ckpt-0.index").exists()


@pytest.mark.parametrize("source", ["nowhere", "nowhere/checkpoints/ckpt-3"])
def test_a_missing_source_is_refused_by_name(tmp_path, cache_dir, source):
    with pytest.raises(InputError, match="nowhere"):
        start_from(tmp_path, cache_dir, source)


def test_with_another_vocabulary_shared_tokens_are_copied_and_init_optimizer_refused(
    tmp_path, cache_dir, finished
):
    _, _, state = start_from(tmp_path, cache_dir, finished, vocab_size=50)
    source = trained_model.load({"workdir": str(finished)})
    tokens = trained_model.load({"workdir": str(tmp_path / "new"), "checkpoint": "latest"}).vocabulary.tokens
    for token in tokens[2:5]:
        theirs = source.model.embedding.embeddings.numpy()[source.vocabulary.tokens.index(token)]
        assert state.model.embedding.embeddings.numpy()[tokens.index(token)].tobytes() == theirs.tobytes()
    with pytest.raises(InputError, match="--init_optimizer needs the same"):
        start_from(tmp_path / "other", cache_dir, finished, vocab_size=50, init_optimizer=True)


@pytest.mark.slow
def test_a_source_of_three_classes_starts_a_run_of_the_same_classes(
    tmp_path, cache_dir, topics, finished_topics
):
    start_from(tmp_path, cache_dir, finished_topics)
    first = str(tmp_path / "new" / "checkpoints" / "ckpt-0")
    assert weights(tmp_path / "new", first) == weights(finished_topics, "best")


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        (("arts", "sports"), r"but has sports, Politics & Law, arts; leave out --init_from\.$"),
        (
            ("arts", "sports", "Politics & Law"),
            r"--labels='sports=sports;Politics & Law=politics & law;arts=arts', or leave out --init_from\.$",
        ),
        (("x", "y", "z"), r"--labels='sports=x;Politics & Law=y;arts=z', or leave out --init_from\.$"),
    ],
)
def test_a_source_of_other_classes_is_refused_by_their_names(
    tmp_path, cache_dir, finished_topics, monkeypatch, names, remedy
):
    monkeypatch.setattr(build, "open_corpus", lambda config: corpus_of(*names))
    with pytest.raises(InputError, match=remedy):
        start_from(tmp_path, cache_dir, finished_topics)


def tables(model):
    return [model.ngrams.log_ratios.numpy(), model.ngrams.weights.numpy()]


@pytest.mark.slow
def test_ngrams_are_taken_over_with_the_same_vocabulary(tmp_path, cache_dir, everything):
    _, _, state = start_from(tmp_path, cache_dir, everything, **EVERYTHING)
    source = trained_model.load({"workdir": str(everything)})
    assert all(map(np.array_equal, tables(state.model), tables(source.model)))
    assert np.any(state.model.ngrams.weights.numpy())


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{"ngram_buckets": 128}, {"ngrams": 1}, {"vocab_size": 90}])
def test_other_ngrams_are_counted_anew(tmp_path, cache_dir, everything, changed):
    _, _, state = start_from(tmp_path, cache_dir, everything, **{**EVERYTHING, **changed})
    log_ratios, weights = tables(state.model)
    assert np.any(log_ratios) and not np.any(weights)


def test_the_average_starts_at_the_copied_weights(tmp_path, cache_dir, finished):
    _, _, state = start_from(tmp_path, cache_dir, finished, ema_momentum=0.9)
    pairs = zip(state.average.trainable_variables, state.model.trainable_variables, strict=True)
    assert all(np.array_equal(average.numpy(), weight.numpy()) for average, weight in pairs)
