"""The table in README that tells what each argument of Keras' callbacks is here; a test for each row."""

import csv
import inspect
import json
import math
import pathlib
import re
import shutil
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from fakes import NoSignals, make_state, tiny
from kill_and_resume import scalars

from trainer import inspect_run, train
from trainer.config import FIELDS
from trainer.run import checkpoint
from trainer.run.state import stop_reason
from trainer.trained import open_trained

README = pathlib.Path(__file__).parent.parent / "README.md"
CALLBACKS = ("ModelCheckpoint", "EarlyStopping", "BackupAndRestore", "TensorBoard", "CSVLogger")
ROWS = dict(re.findall(r"^\| `((?:%s)\.\w+)` \| (.+) \|$" % "|".join(CALLBACKS), README.read_text(), re.MULTILINE))  # noqa: UP031


def test_there_is_a_row_for_each_argument_and_no_other():
    arguments = [f"{name}.{argument}" for name in CALLBACKS for argument in inspect.signature(getattr(keras.callbacks, name)).parameters]
    assert list(ROWS) == arguments


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_a_test_and_names_flags_that_there_are(row):
    name = re.sub("(?<!^)([A-Z])(?=[a-z])", r"_\1", row.replace(".", "_")).lower()
    assert f"test_{name}" in globals()
    for flag in re.findall(r"--(\w+)", ROWS[row]):
        assert flag in FIELDS or flag == "verbosity"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache_dir):
    """A run of 24 steps, logged every 3, evaluated every 5, saved every 7, profiled at the second."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    settings = {"checkpoint_every_steps": 7, "checkpoint_every_secs": 0, "max_to_keep": 100, "patience": 0, "profile_steps": "2:2"}
    train.run(tiny(workdir, cache_dir, **settings), signals=NoSignals())
    return workdir


def kept(workdir, folder="checkpoints"):
    return [checkpoint.step_of(prefix) for prefix in checkpoint.prefixes(workdir / folder)]


def verdicts(values, **settings):
    """Which values are best, and after how many patience stops, here."""
    settings = {"lower_is_better": True, "initial_best": None, "min_delta": 0.0, "baseline": None, "start": 0, "patience": 3} | settings
    state = make_state(lower_is_better=settings["lower_is_better"], initial_best=settings["initial_best"])
    best, stop = [], None
    for epoch, value in enumerate(values):
        state.step.assign_add(1)
        rules = {name: settings[name] for name in ("lower_is_better", "min_delta", "baseline")}
        best.append(state.record_evaluation(value, counts_for_patience=epoch >= settings["start"], **rules))
        reason = stop_reason(
            step=epoch + 1,
            waited=int(state.waited),
            improved=bool(state.improved),
            epochs=1000,
            steps_per_epoch=1,
            patience=settings["patience"],
        )
        stop = epoch if stop is None and reason else stop
    return best, stop


def best_of_keras(values, tmp_path, **settings):
    """Which values Keras' ModelCheckpoint saves."""
    saved = []
    settings = {"monitor": "metric", "mode": "min", "save_best_only": True, "save_weights_only": True} | settings
    callback = keras.callbacks.ModelCheckpoint(str(tmp_path / "a.weights.h5"), **settings)
    callback.set_model(types.SimpleNamespace(save_weights=lambda *_, **__: saved.append(epoch)))
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"metric": value})
    return [epoch in saved for epoch in range(len(values))]


def stop_of_keras(values, **settings):
    """The epoch at which Keras' EarlyStopping stops."""
    callback = keras.callbacks.EarlyStopping(**{"monitor": "metric", "mode": "min", "patience": 3} | settings)
    callback.set_model(types.SimpleNamespace(stop_training=False))
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"metric": value})
        if callback.model.stop_training:
            return epoch
    return None


SEQUENCES = [np.random.default_rng(seed).random(30).tolist() for seed in range(8)]


def test_model_checkpoint_filepath(finished):
    assert kept(finished)[-1] == 24
    assert len(kept(finished, "best")) == 1
    told = inspect_run.inspect(finished, {"workdir": str(finished)})["checkpoints"]
    assert all(entry["val_loss"] > 0 for entry in told if entry["step"] in (5, 10, 15, 20))


def test_model_checkpoint_monitor(tmp_path, cache_dir):
    assert set(FIELDS["monitor"].metadata["choices"]) == {"val_loss", "val_accuracy", "loss", "accuracy"}
    train.run(tiny(tmp_path / "run", cache_dir, monitor="val_accuracy", epochs=2), signals=NoSignals())
    accuracy = {
        step: value
        for (run, tag, step), (value,) in scalars(tmp_path / "run/summaries").items()
        if (run, tag) == ("validation", "accuracy")
    }
    assert kept(tmp_path / "run", "best") == [max(sorted(accuracy), key=accuracy.get)]
    assert verdicts([math.nan, 0.5])[0] == [False, True]
    assert best_of_keras([math.nan, 0.5], tmp_path)[0]


def test_model_checkpoint_verbose(tmp_path, cache_dir, caplog):
    caplog.set_level("DEBUG", logger="absl")
    train.run(tiny(tmp_path / "run", cache_dir, epochs=1), signals=NoSignals())
    for step in kept(tmp_path / "run"):
        assert f"Saved {tmp_path}/run/checkpoints/ckpt-{step}, " in caplog.text


def test_model_checkpoint_save_best_only(finished, tmp_path, cache_dir):
    assert kept(finished, "best") == [json.loads((finished / "result.json").read_text())["best_step"]]
    train.run(tiny(tmp_path / "run", cache_dir, max_to_keep=1), signals=NoSignals())
    assert len(kept(tmp_path / "run")) == len(kept(tmp_path / "run", "best")) == 1


def test_model_checkpoint_save_weights_only(finished):
    for prefix in (*checkpoint.prefixes(finished / "checkpoints"), *checkpoint.prefixes(finished / "best")):
        names = tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
        assert any(name.startswith("optimizer/") for name in names)
        assert any(name.startswith("step/") for name in names)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_model_checkpoint_mode(mode, tmp_path):
    for values in SEQUENCES:
        assert verdicts(values, lower_is_better=mode == "min")[0] == best_of_keras(values, tmp_path, mode=mode)


def test_model_checkpoint_save_freq(finished, tmp_path, cache_dir):
    assert kept(finished) == [0, 5, 7, 10, 14, 15, 20, 21, 24]
    settings = {"eval_every_steps": 0, "checkpoint_every_steps": 0, "checkpoint_every_secs": 0, "max_to_keep": 100}
    train.run(tiny(tmp_path / "run", cache_dir, patience=0, **settings), signals=NoSignals())
    assert kept(tmp_path / "run") == [0, 8, 16, 24]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_model_checkpoint_initial_value_threshold(mode, tmp_path):
    for values in SEQUENCES:
        settings = {"mode": mode, "initial_value_threshold": values[3]}
        assert verdicts(values, lower_is_better=mode == "min", initial_best=values[3])[0] == best_of_keras(values, tmp_path, **settings)


def test_early_stopping_monitor(tmp_path, cache_dir):
    settings = {"monitor": "val_accuracy", "baseline": 1.0, "initial_best": 1.0, "patience": 2}
    train.run(tiny(tmp_path / "run", cache_dir, **settings), signals=NoSignals())
    assert json.loads((tmp_path / "run" / "result.json").read_text())["reason"].startswith("no improvement in")


@pytest.mark.parametrize("min_delta", [0.0, 0.01, 0.2])
def test_early_stopping_min_delta(min_delta):
    for values in SEQUENCES:
        assert verdicts(values, min_delta=min_delta)[1] == stop_of_keras(values, min_delta=min_delta)


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_early_stopping_patience(patience):
    for values in SEQUENCES:
        assert verdicts(values, patience=patience)[1] == stop_of_keras(values, patience=patience)
        assert verdicts(values, patience=0)[1] is None
        assert stop_of_keras(values, patience=0) == stop_of_keras(values, patience=1)


def test_early_stopping_verbose(finished, tmp_path, cache_dir, caplog):
    train.run(tiny(tmp_path / "run", cache_dir, initial_best=0.0, baseline=0.0, patience=2), signals=NoSignals())
    reason = json.loads((tmp_path / "run" / "result.json").read_text())["reason"]
    assert f"Ended at step 10: {reason}." in caplog.text


@pytest.mark.parametrize("mode", ["min", "max"])
def test_early_stopping_mode(mode):
    for values in SEQUENCES:
        assert verdicts(values, lower_is_better=mode == "min")[1] == stop_of_keras(values, mode=mode)


@pytest.mark.parametrize("baseline", [0.05, 0.3, 0.9])
def test_early_stopping_baseline(baseline):
    for values in SEQUENCES:
        assert verdicts(values, baseline=baseline)[1] == stop_of_keras(values, baseline=baseline)


def test_early_stopping_restore_best_weights(finished):
    ending = json.loads((finished / "result.json").read_text())
    assert open_trained({"workdir": str(finished)}).step == ending["best_step"]
    assert [step for run, tag, step in scalars(finished / "summaries") if (run, tag) == ("test", "loss")] == [ending["best_step"]]


@pytest.mark.parametrize("start", [0, 2, 10])
def test_early_stopping_start_from_epoch(start):
    for values in SEQUENCES:
        assert verdicts(values, start=start)[1] == stop_of_keras(values, start_from_epoch=start)


def take_back(workdir, step):
    """Makes a finished run one that was killed after the save of `step`."""
    for path in workdir.glob("*/ckpt-*"):
        if int(re.search(r"ckpt-(\d+)", path.name)[1]) > step:
            path.unlink()
    return workdir


@pytest.fixture
def killed(finished, tmp_path):
    """The run, killed after the save of step 7, within its first epoch; what it held at the end is returned as well."""
    return take_back(shutil.copytree(finished, tmp_path / "killed"), 7)


def test_backup_and_restore_backup_dir(killed, finished, cache_dir):
    train.run({"workdir": str(killed), "cache_dir": cache_dir}, signals=NoSignals())
    for name in ("checkpoints/ckpt-24.data-00000-of-00001", "result.json"):
        assert (killed / name).read_bytes() == (finished / name).read_bytes()


def test_backup_and_restore_save_freq(killed, cache_dir, caplog):
    train.run({"workdir": str(killed), "cache_dir": cache_dir}, signals=NoSignals())
    assert "Resumed at step 7 of 24." in caplog.text


def test_backup_and_restore_double_checkpoint(killed, cache_dir, caplog):
    (killed / "checkpoints" / "ckpt-7.data-00000-of-00001").write_bytes(b"")
    train.run({"workdir": str(killed), "cache_dir": cache_dir}, signals=NoSignals())
    assert "Resumed at step 5 of 24." in caplog.text


def test_backup_and_restore_delete_checkpoint(finished, tmp_path, cache_dir):
    workdir = shutil.copytree(finished, tmp_path / "more")
    train.run({"workdir": str(workdir), "cache_dir": cache_dir, "epochs": 4}, signals=NoSignals())
    assert kept(workdir)[-1] == 32


def test_tensor_board_log_dir(finished):
    assert {path.name for path in (finished / "summaries").iterdir()} == {"train", "validation", "best", "test"}


def test_tensor_board_histogram_freq(finished):
    weights = open_trained({"workdir": str(finished)}).model.trainable_variables
    reader = tf.train.load_checkpoint(str(checkpoint.newest_best(finished)))
    saved = {reader.get_tensor(name).tobytes() for name, shape in reader.get_variable_to_shape_map().items() if shape}
    assert {weight.numpy().tobytes() for weight in weights} <= saved


def test_tensor_board_write_graph(finished):
    (profile,) = (finished / "summaries" / "train").glob("plugins/profile/*/*.xplane.pb")
    assert b"_forward" in profile.read_bytes()


def test_tensor_board_write_images(finished):
    assert {tag for _, tag, _ in scalars(finished / "summaries")} == {
        *("loss", "accuracy", "learning_rate", "gradient_norm", "padded_ratio", "reviews_per_second", "configuration", "sample_texts"),
        *("loss_since_evaluation", "accuracy_since_evaluation", "best_step", "waited"),
    }


def test_tensor_board_write_steps_per_second(finished):
    rates = [value for (_, tag, _), (value,) in scalars(finished / "summaries").items() if tag == "reviews_per_second"]
    assert len(rates) == 8
    assert min(rates) > 0


def test_tensor_board_update_freq(finished):
    steps = [step for run, tag, step in scalars(finished / "summaries") if (run, tag) == ("train", "loss")]
    assert steps == [3, 6, 9, 12, 15, 18, 21, 24]


def test_tensor_board_profile_batch(finished):
    assert list((finished / "summaries" / "train").glob("plugins/profile/*/*.xplane.pb"))


def test_tensor_board_embeddings_freq(finished):
    reader = tf.train.load_checkpoint(str(checkpoint.newest_best(finished)))
    (name,) = (name for name in reader.get_variable_to_shape_map() if re.fullmatch(r"model/embedding/.*VARIABLE_VALUE", name))
    assert reader.get_tensor(name).shape == (100, 8)


def test_tensor_board_embeddings_metadata(finished):
    assert len((finished / "vocabulary.txt").read_bytes().split(b"\n")) == 100


def history(workdir, tmp_path):
    inspect_run.run({"workdir": str(workdir), "output": str(tmp_path / "history.csv")}, signals=NoSignals())
    return (tmp_path / "history.csv").read_text()


def test_csv_logger_filename(finished, tmp_path):
    rows = list(csv.DictReader(history(finished, tmp_path).splitlines()))
    assert [int(row["step"]) for row in rows] == [5, 10, 15, 20]
    assert {"epoch", "loss", "accuracy", "val_loss", "val_accuracy"} < set(rows[0])


def test_csv_logger_separator(finished, tmp_path):
    assert {line.count(",") for line in history(finished, tmp_path).splitlines()} == {7}


def test_csv_logger_append(finished, killed, tmp_path, cache_dir):
    straight = history(finished, tmp_path)
    train.run({"workdir": str(killed), "cache_dir": cache_dir}, signals=NoSignals())
    assert history(killed, tmp_path) == straight
