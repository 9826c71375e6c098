"""A new run begins with the weights of another one."""

import shutil

import numpy as np
import pytest
from fakes import NoStopRequests, tiny

from trainer import prepare, session, train, trained_model
from trainer.errors import InputError
from trainer.run import checkpoint_files, checkpoint_reading


def begun(tmp_path, cache_dir, source, **settings):
    """The state of a new run that starts from `source`, committed before the first step and killed there."""
    given = tiny(tmp_path / "new", cache_dir, init_from=str(source), epochs=1, **settings)
    run = session.open_session(given, stop_requests=NoStopRequests())
    prepare.prepare_directory(run)
    return given, checkpoint_reading.read_values(tmp_path / "new" / "checkpoints" / "ckpt-0"), run.state


def weights(workdir, name):
    trained = trained_model.load({"workdir": str(workdir), "checkpoint": name})
    return [weight.numpy().tobytes() for weight in trained.model.trainable_variables]


def test_a_new_run_may_begin_with_the_weights_of_anothers_best_or_of_any_checkpoint(
    tmp_path, cache_dir, finished
):
    for number, (source, name) in enumerate(
        (
            (finished, "best"),
            (finished / "checkpoints" / "ckpt-23", str(finished / "checkpoints" / "ckpt-23")),
        )
    ):
        _, values, _ = begun(tmp_path / str(number), cache_dir, source)
        assert weights(
            tmp_path / str(number) / "new", str(tmp_path / str(number) / "new" / "checkpoints" / "ckpt-0")
        ) == weights(finished, name)
        assert (values["step"], values["best_step"], values["best_metric"]) == (0, -1, float("inf"))
        assert values["optimizer/_iterations"] == 0


def test_the_optimizer_and_the_metric_to_beat_come_along_when_asked_for(tmp_path, cache_dir, finished):
    source = checkpoint_files.newest_best(finished)
    _, values, state = begun(
        tmp_path, cache_dir, finished, init_optimizer=True, init_best_metric=True, learning_rate=0.5
    )
    assert values["optimizer/_iterations"] == checkpoint_files.step_of(source)
    assert values["best_metric"] == checkpoint_reading.read_values(source)["best_metric"]
    assert values["optimizer/_learning_rate"] == np.float32(0.5)
    assert any(np.any(slot.numpy()) for slot in state.optimizer.variables[2:])


def test_a_metric_of_another_kind_is_not_the_one_to_beat(tmp_path, cache_dir, finished):
    with pytest.raises(
        InputError,
        match=r"--init_best_metric needs a run that monitors val_accuracy, but .* monitors val_loss",
    ):
        begun(tmp_path, cache_dir, finished, init_best_metric=True, monitor="val_accuracy")


def test_a_run_that_was_killed_before_its_first_step_goes_on_from_what_it_was_begun_with(
    tmp_path, cache_dir, copy
):
    given, _, _ = begun(tmp_path, cache_dir, copy)
    before = weights(tmp_path / "new", "latest")
    shutil.rmtree(copy)
    run = session.open_session(given, stop_requests=NoStopRequests())
    assert [weight.numpy().tobytes() for weight in run.state.model.trainable_variables] == before


def test_a_run_that_has_checkpoints_ignores_the_flag_and_says_so(copy, cache_dir, caplog):
    train.run(tiny(copy, cache_dir, epochs=4, init_from="nowhere"), stop_requests=NoStopRequests())
    assert "--init_from=nowhere is ignored" in caplog.text


def test_the_source_is_left_as_it_is(tmp_path, cache_dir, finished):
    def files():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.rglob("*")}

    before = files()
    begun(tmp_path, cache_dir, finished)
    assert files() == before


def test_each_weight_of_another_shape_is_named(tmp_path, cache_dir, finished):
    with pytest.raises(
        InputError,
        match=r"forward.*kernel is \[8, 32\] there and \[8, 16\] here; .*hidden/kernel is \[16, 8\]",
    ):
        begun(tmp_path, cache_dir, finished, lstm_units=4)
    assert not (tmp_path / "new" / "checkpoints" / "ckpt-0.index").exists()


@pytest.mark.parametrize("source", ["nowhere", "nowhere/checkpoints/ckpt-3"])
def test_a_source_that_is_not_there_is_one_sentence(tmp_path, cache_dir, source):
    with pytest.raises(InputError, match="nowhere"):
        begun(tmp_path, cache_dir, source)


def test_another_vocabulary_takes_the_tokens_that_it_knows_and_not_the_optimizer(
    tmp_path, cache_dir, finished
):
    _, _, state = begun(tmp_path, cache_dir, finished, vocab_size=50)
    source = trained_model.load({"workdir": str(finished)})
    tokens = trained_model.load({"workdir": str(tmp_path / "new"), "checkpoint": "latest"}).vocabulary.tokens
    for token in tokens[2:5]:
        theirs = source.model.embedding.embeddings.numpy()[source.vocabulary.tokens.index(token)]
        assert state.model.embedding.embeddings.numpy()[tokens.index(token)].tobytes() == theirs.tobytes()
    with pytest.raises(InputError, match="--init_optimizer needs the same"):
        begun(tmp_path / "other", cache_dir, finished, vocab_size=50, init_optimizer=True)
