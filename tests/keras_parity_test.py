"""The table in BUILD.md of Keras' callback arguments and their equivalents here; a test for each row."""

import csv
import inspect
import io
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
from absl import flags as absl_flags
from compare_runs import outcome, scalars
from fakes import NoStopRequests, tiny

from trainer import config, export, flags, inspect_run, inspection, prepare, session, train, trained_model
from trainer.config import FIELDS
from trainer.run import checkpoint_files
from trainer.run.early_stopping import initial, stop_reason, verdict
from trainer.run.records import read_starts

BUILD = pathlib.Path(__file__).parent.parent / "BUILD.md"
SECTION = BUILD.read_text().partition("\n## Coming from Keras\n")[2].partition("\n## ")[0]
ROWS = [
    re.fullmatch(r"\| `(.+?)` \| (.+) \|", line).groups()
    for line in SECTION.splitlines()
    if line.startswith("| `")
]
CALLBACKS = ("ModelCheckpoint", "EarlyStopping", "BackupAndRestore", "TensorBoard", "CSVLogger")
STEPS, STEPS_PER_EPOCH = 24, 8


def test_each_callback_argument_has_exactly_one_row():
    arguments = [
        f"{name}.{argument}"
        for name in CALLBACKS
        for argument in inspect.signature(getattr(keras.callbacks, name)).parameters
    ]
    assert [row for row, _ in ROWS] == arguments


@pytest.mark.parametrize(("row", "here"), ROWS)
def test_each_row_has_a_test_and_names_existing_flags(row, here):
    name = re.sub("(?<!^)([A-Z])(?=[a-z])", r"_\1", row.replace(".", "_")).lower()
    assert f"test_{name}" in globals()
    named = set(re.findall(r"--(\w+)", here))
    assert named <= {*FIELDS, "verbosity"}
    assert named or here.startswith(("not needed: ", "not offered: ", "as `"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache_dir):
    """A run that was logged every 3 steps, evaluated every 5, saved every 7, and profiled at step 2."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    settings = {
        "checkpoint_every_steps": 7,
        "checkpoint_every_secs": 0,
        "max_to_keep": 100,
        "patience": 0,
        "profile_steps": "2:2",
    }
    train.run(tiny(workdir, cache_dir, **settings), stop_requests=NoStopRequests())
    return workdir


@pytest.fixture(scope="module")
def resumed(finished, tmp_path_factory, cache_dir):
    """The same run, killed after step 7 with a damaged last checkpoint, then resumed with --max_to_keep=1."""
    workdir = shutil.copytree(finished, tmp_path_factory.mktemp("resumed") / "run")
    for path in workdir.glob("*/ckpt-*"):
        if int(re.match(r"ckpt-(\d+)", path.name)[1]) > 7:
            path.unlink()
    (workdir / "checkpoints" / "ckpt-7.data-00000-of-00001").write_bytes(b"")
    train.run(
        {"workdir": str(workdir), "cache_dir": cache_dir, "max_to_keep": 1}, stop_requests=NoStopRequests()
    )
    return workdir


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, cache_dir):
    """A run that monitors accuracy, saved once an epoch; nothing beats the baseline, so patience stops it."""
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    settings = {
        "monitor": "val_accuracy",
        "baseline": 1.0,
        "patience": 2,
        "epochs": 6,
        "eval_every_steps": 0,
        "max_to_keep": 100,
    }
    train.run(
        tiny(workdir, cache_dir, checkpoint_every_steps=0, checkpoint_every_secs=0, **settings),
        stop_requests=NoStopRequests(),
    )
    return workdir


def saved_steps(workdir, folder="checkpoints"):
    return [checkpoint_files.step_of(prefix) for prefix in checkpoint_files.prefixes(workdir / folder)]


def result(workdir):
    return json.loads((workdir / "result.json").read_text())


def curve(workdir, run, tag):
    return [
        value
        for (point_run, point_tag, _), (value,) in scalars(workdir / "summaries").items()
        if (point_run, point_tag) == (run, tag)
    ]


def history(workdir, tmp_path):
    inspect_run.run({"workdir": str(workdir), "output": str(tmp_path / "history.csv")})
    return (tmp_path / "history.csv").read_text()


def plugins(workdir):
    """The TensorBoard plugins that these event files have data for."""
    records = (
        record
        for path in workdir.glob("summaries/*/events.*")
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    )
    return {
        value.metadata.plugin_data.plugin_name
        for record in records
        for value in tf.compat.v1.Event.FromString(record).summary.value
    }


@pytest.fixture
def logged_at(caplog):
    """A function that returns what another one logs at a given --verbosity."""

    def capture(verbosity, function):
        flags.parse(["trainer", f"--verbosity={verbosity}"])
        caplog.clear()
        function()
        return caplog.text

    caplog.set_level("DEBUG", logger="absl")
    absl_flags.FLAGS.unparse_flags()
    yield capture
    absl_flags.FLAGS["verbosity"].unparse()
    absl_flags.FLAGS.unparse_flags()


# The verdicts here and those of Keras. Values are multiples of 1/16, so that ties are frequent and float32,
# in which Keras compares, is exact.


def draw(seed, *, nan=False):
    """Random metrics of 20 evaluations, and random settings of the callbacks."""
    random = np.random.default_rng(seed)
    values = (np.sort(random.integers(4, 17, 20))[::-1] / 16 + random.integers(-3, 4, 20) / 16).tolist()
    settings = {
        "mode": str(random.choice(["min", "max"])),
        "min_delta": float(random.choice([0.0, 0.0625, 0.125])),
        "baseline": [None, 0.5, 0.75][random.integers(3)],
        "patience": int(random.integers(1, 5)),
        "start_from_epoch": int(random.choice([0, 0, 2, 5])),
    }
    if settings["mode"] == "max":
        values = [1 - value for value in values]
    if nan:
        for index in random.integers(settings["start_from_epoch"] + 1, 20, 3):
            values[index] = math.nan
    return values, settings


def best_and_stop(
    values, *, mode="min", min_delta=0.0, baseline=None, patience=3, start_from_epoch=0, initial_best=None
):
    """The epochs that are best here, and the epoch at which patience stops."""
    lower_is_better = mode == "min"
    state = initial(lower_is_better=lower_is_better, initial_best=initial_best)
    best, stop = [], None
    for epoch, value in enumerate(values):
        rules = {"lower_is_better": lower_is_better, "min_delta": min_delta, "baseline": baseline}
        state = verdict(state, value, step=epoch + 1, counts_for_patience=epoch >= start_from_epoch, **rules)
        if state.best_step == epoch + 1:
            best.append(epoch)
        counts = {"waited": state.waited, "improved": state.improved}
        if stop is None and stop_reason(
            step=epoch + 1, epochs=1000, steps_per_epoch=1, patience=patience, **counts
        ):
            stop = epoch
    return best, stop


def saved_by_keras(values, tmp_path, *, monitor="metric", mode="min", metrics=(), **settings):
    """The epochs at which Keras' ModelCheckpoint saves."""
    saved = []
    settings = {"save_best_only": True, "save_weights_only": True, **settings}
    callback = keras.callbacks.ModelCheckpoint(str(tmp_path / "a.weights.h5"), monitor, mode=mode, **settings)
    callback.set_model(
        types.SimpleNamespace(save_weights=lambda *_, **__: saved.append(epoch), metrics=metrics)
    )
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {monitor: value})
    return saved


def early_stopping(values, **settings):
    """Keras' EarlyStopping after these values, and the epoch at which it stops."""
    callback = keras.callbacks.EarlyStopping(
        **{"monitor": "metric", "mode": "min", "patience": 3, **settings}
    )
    callback.set_model(types.SimpleNamespace(stop_training=False, get_weights=list))
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"metric": value})
        if callback.model.stop_training:
            return callback, epoch
    return callback, None


def assert_same_stop(name, given_values, *, default):
    """Compares runs with one argument given, the others random; it must make a difference in one of them."""
    matters = 0
    for seed in range(24):
        values, settings = draw(seed)
        settings[name] = given_values[seed % len(given_values)]
        _, stop = early_stopping(values, **settings)
        assert best_and_stop(values, **settings)[1] == stop, (values, settings)
        matters += stop != early_stopping(values, **{**settings, name: default})[1]
    assert matters


def test_model_checkpoint_filepath(finished):
    assert saved_steps(finished)[-1] == STEPS
    assert len(saved_steps(finished, "best")) == 1
    listed = {
        entry["path"]: entry["val_loss"]
        for entry in inspection.facts_of(inspection.look(finished, {"workdir": str(finished)}))["checkpoints"]
    }
    losses = dict(zip((5, 10, 15, 20), curve(finished, "validation", "loss"), strict=True))
    for step in saved_steps(finished):
        assert listed[f"{finished}/checkpoints/ckpt-{step}"] == pytest.approx(losses.get(step))


def test_model_checkpoint_monitor(stopped, tmp_path):
    assert set(FIELDS["monitor"].metadata["choices"]) == {
        *("val_loss", "val_accuracy", "val_f1", "val_auc", "loss", "accuracy"),
    }
    saved = saved_by_keras(curve(stopped, "validation", "accuracy"), tmp_path, mode="max")
    assert saved_steps(stopped, "best") == [STEPS_PER_EPOCH * (saved[-1] + 1)]
    for first in (math.nan, -math.inf):
        assert best_and_stop([first, 0.5, 0.25])[0] == [1, 2]
        assert saved_by_keras([first, 0.5, 0.25], tmp_path) == [0]


def test_model_checkpoint_verbose(tmp_path, cache_dir, logged_at):
    def start(name):
        prepare.prepare_directory(
            session.open_session(tiny(tmp_path / name, cache_dir), stop_requests=NoStopRequests())
        )

    assert f"Saved {tmp_path}/verbose/checkpoints/ckpt-0, " in logged_at(1, lambda: start("verbose"))
    assert "Saved" not in logged_at(0, lambda: start("quiet"))


def test_model_checkpoint_save_best_only(finished, resumed):
    assert saved_steps(finished, "best") == saved_steps(resumed, "best") == [result(finished)["best_step"]]
    assert saved_steps(resumed) == [STEPS]


def test_model_checkpoint_save_weights_only(finished):
    for prefix in (
        *checkpoint_files.prefixes(finished / "checkpoints"),
        *checkpoint_files.prefixes(finished / "best"),
    ):
        parts = {
            name.partition("/")[0]
            for name in tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
        }
        assert {"model", "optimizer", "step", "best_metric", "waited"} <= parts


def test_model_checkpoint_mode(tmp_path):
    for seed in range(12):
        values, settings = draw(seed, nan=True)
        assert best_and_stop(values, mode=settings["mode"])[0] == saved_by_keras(
            values, tmp_path, mode=settings["mode"]
        )
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    scores = [keras.metrics.F1Score(name="f1"), keras.metrics.AUC(name="auc")]
    model.compile(loss="mse", metrics=[keras.metrics.BinaryAccuracy(name="accuracy"), *scores])
    model.evaluate(np.zeros((1, 1)), np.zeros((1, 1)), verbose=0)
    for monitor in FIELDS["monitor"].metadata["choices"]:
        for mode in ("auto", "min", "max"):
            chosen = config.Config(workdir="run", monitor=monitor, monitor_mode=mode)
            saved = saved_by_keras([0.5, 0.75], tmp_path, monitor=monitor, mode=mode, metrics=model.metrics)
            assert chosen.lower_is_better == (saved == [0])


def test_model_checkpoint_save_freq(finished, stopped, tmp_path):
    epochs = saved_by_keras(curve(stopped, "validation", "loss"), tmp_path, save_best_only=False)
    assert saved_steps(stopped) == [0, *(STEPS_PER_EPOCH * (epoch + 1) for epoch in epochs)]
    batches = []
    callback = keras.callbacks.ModelCheckpoint(
        str(tmp_path / "a.weights.h5"), save_weights_only=True, save_freq=7
    )
    callback.set_model(types.SimpleNamespace(save_weights=lambda *_, **__: batches.append(step + 1)))
    for step in range(STEPS):
        epoch, batch = divmod(step, STEPS_PER_EPOCH)
        if batch == 0:
            callback.on_epoch_begin(epoch)
        callback.on_train_batch_end(batch, {})
    assert saved_steps(finished) == sorted({0, *batches, 5, 10, 15, 20, STEPS})


def test_model_checkpoint_initial_value_threshold(tmp_path):
    matters = 0
    for seed in range(12):
        values, settings = draw(seed)
        saved = saved_by_keras(values, tmp_path, mode=settings["mode"], initial_value_threshold=values[3])
        assert best_and_stop(values, mode=settings["mode"], initial_best=values[3])[0] == saved
        matters += saved != saved_by_keras(values, tmp_path, mode=settings["mode"])
    assert matters


def test_early_stopping_monitor(stopped):
    _, stop = early_stopping(curve(stopped, "validation", "accuracy"), mode="max", baseline=1.0, patience=2)
    assert result(stopped)["stop_step"] == STEPS_PER_EPOCH * (stop + 1)
    assert "--patience=2" in result(stopped)["reason"]
    for seed in range(24):
        values, settings = draw(seed, nan=True)
        assert best_and_stop(values, **settings)[1] == early_stopping(values, **settings)[1]
    falling = [math.nan, 0.5, 0.25, 0.125]
    assert early_stopping(falling, patience=2)[1] == 2
    assert best_and_stop(falling, patience=2)[1] is None


def test_early_stopping_min_delta():
    assert_same_stop("min_delta", [0.0625, 0.125, 0.25], default=0.0)


def test_early_stopping_patience():
    assert_same_stop("patience", [1, 2, 4], default=3)
    for seed in range(8):
        values, settings = draw(seed)
        assert best_and_stop(values, **{**settings, "patience": 0})[1] is None
        assert (
            early_stopping(values, **{**settings, "patience": 0})[1]
            == early_stopping(values, **{**settings, "patience": 1})[1]
        )


def test_early_stopping_verbose(stopped, cache_dir, logged_at):
    def again():
        train.run({"workdir": str(stopped), "cache_dir": cache_dir}, stop_requests=NoStopRequests())

    assert result(stopped)["reason"] in logged_at(0, again)
    assert logged_at(-1, again) == ""


def test_early_stopping_mode():
    assert_same_stop("mode", ["max"], default="min")
    assert_same_stop("mode", ["min"], default="max")


def test_early_stopping_baseline():
    assert_same_stop("baseline", [0.25, 0.5, 0.75], default=None)


def test_early_stopping_restore_best_weights(finished):
    best = result(finished)["best_step"]
    assert best < result(finished)["stop_step"]
    assert trained_model.load({"workdir": str(finished)}).step == best
    assert [step for run, tag, step in scalars(finished / "summaries") if (run, tag) == ("test", "loss")] == [
        best
    ]
    for values, settings, ours, restored in (
        ([0.5, 0.4375], {"min_delta": 0.25}, [0, 1], 0),
        ([0.25, 0.5, 0.75], {"start_from_epoch": 1}, [0], 1),
    ):
        assert best_and_stop(values, **settings)[0] == ours
        assert early_stopping(values, restore_best_weights=True, **settings)[0].best_epoch == restored


def test_early_stopping_start_from_epoch():
    assert_same_stop("start_from_epoch", [2, 5, 10], default=0)


def test_backup_and_restore_backup_dir(finished, resumed):
    assert len(read_starts(resumed)) == 2
    ours, theirs = outcome(resumed), outcome(finished)
    for name in ("newest", "state", "best", "result.json"):
        assert ours[name] == theirs[name]


def test_backup_and_restore_save_freq(resumed, tmp_path):
    assert read_starts(resumed)[-1]["step"] == 5
    batches = []

    def fit(last):
        def note(batch, logs):
            batches.append(batch)
            if batch == last:
                raise InterruptedError

        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(loss="mse")
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"), save_freq=1)
        callbacks = [backup, keras.callbacks.LambdaCallback(on_train_batch_end=note)]
        model.fit(
            np.zeros((STEPS_PER_EPOCH, 1)),
            np.zeros((STEPS_PER_EPOCH, 1)),
            batch_size=1,
            callbacks=callbacks,
            verbose=0,
        )
        return int(model.optimizer.iterations)

    with pytest.raises(InterruptedError):
        fit(last=4)
    assert fit(last=None) == 5 + STEPS_PER_EPOCH
    assert batches == [*range(5), *range(STEPS_PER_EPOCH)]


def test_backup_and_restore_double_checkpoint(resumed):
    assert [path.name for path in (resumed / "quarantine").rglob("*.index")] == ["ckpt-7.index"]
    assert read_starts(resumed)[-1]["step"] == 5


def test_backup_and_restore_delete_checkpoint(finished, stopped, tmp_path, cache_dir):
    for workdir, more in ((finished, {"epochs": 4}), (stopped, {"patience": 9})):
        copy = shutil.copytree(workdir, tmp_path / workdir.parent.name)
        for given, continues in (({}, False), (more, True)):
            run = session.open_session(
                {"workdir": str(copy), "cache_dir": cache_dir, **given}, stop_requests=NoStopRequests()
            )
            assert int(run.state.step) == result(workdir)["stop_step"]
            assert (run.stop_reason() is None) == continues


def test_tensor_board_log_dir(finished):
    assert {path.name for path in (finished / "summaries").iterdir()} == {
        "train",
        "validation",
        "best",
        "test",
    }


def stored(workdir, part):
    """The arrays of the best checkpoint whose names start with `part`."""
    reader = tf.train.load_checkpoint(str(checkpoint_files.newest_best(workdir)))
    names = (
        name for name, shape in reader.get_variable_to_shape_map().items() if name.startswith(part) and shape
    )
    return [reader.get_tensor(name) for name in names]


def test_tensor_board_histogram_freq(finished):
    assert plugins(finished) == {"scalars", "text"}
    weights = trained_model.load({"workdir": str(finished)}).model.trainable_variables
    assert {weight.numpy().tobytes() for weight in weights} <= {
        array.tobytes() for array in stored(finished, "")
    }


def test_tensor_board_write_graph(finished, tmp_path):
    assert "graph_keras_model" not in plugins(finished)
    model = export.stock_model(trained_model.load({"workdir": str(finished)}))
    callback = keras.callbacks.TensorBoard(str(tmp_path / "summaries"))
    callback.set_model(model)
    callback.on_train_end()
    assert plugins(tmp_path) == {"graph_keras_model"}


def test_tensor_board_write_images(finished):
    assert "images" not in plugins(finished)
    assert (100, 8) in {array.shape for array in stored(finished, "model/")}


def test_tensor_board_write_steps_per_second(finished):
    rates = curve(finished, "train", "reviews_per_second")
    assert len(rates) == STEPS / 3
    assert min(rates) > 0


def test_tensor_board_update_freq(finished):
    steps = [step for run, tag, step in scalars(finished / "summaries") if (run, tag) == ("train", "loss")]
    assert steps == list(range(3, STEPS + 1, 3))


def test_tensor_board_profile_batch(finished, stopped):
    (profile,) = (finished / "summaries" / "train").glob("plugins/profile/*/*.xplane.pb")
    assert b"train_step" in profile.read_bytes()
    assert not (stopped / "summaries" / "train" / "plugins").exists()


def test_tensor_board_embeddings_freq(finished):
    (vectors,) = stored(finished, "model/embedding/")
    assert (
        vectors.tobytes()
        == trained_model.load({"workdir": str(finished)}).model.embedding.embeddings.numpy().tobytes()
    )


def test_tensor_board_embeddings_metadata(finished):
    labels = (finished / "vocabulary.txt").read_bytes().split(b"\n")
    assert tuple(labels) == trained_model.load({"workdir": str(finished)}).vocabulary.tokens
    assert len(labels) == len(stored(finished, "model/embedding/")[0])
    assert [row for row, label in enumerate(labels) if not label.strip()] == [0]


def test_csv_logger_filename(stopped, tmp_path):
    ours = list(csv.DictReader(io.StringIO(history(stopped, tmp_path))))
    assert list(ours[0]) == [
        "step",
        "epoch",
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
        "best",
        "patience",
    ]
    callback = keras.callbacks.CSVLogger(tmp_path / "keras.csv")
    callback.on_train_begin()
    curves = {
        "loss": curve(stopped, "train", "loss_since_evaluation"),
        "accuracy": curve(stopped, "train", "accuracy_since_evaluation"),
        "val_loss": curve(stopped, "validation", "loss"),
        "val_accuracy": curve(stopped, "validation", "accuracy"),
    }
    for epoch, logs in enumerate(zip(*curves.values(), strict=True)):
        callback.on_epoch_end(epoch, dict(zip(curves, logs, strict=True)))
    callback.on_train_end()
    theirs = list(csv.DictReader((tmp_path / "keras.csv").open()))
    for our, their in zip(ours, theirs, strict=True):
        assert float(our["epoch"]) == float(their.pop("epoch")) + 1
        assert {name: np.float32(our[name]) for name in their} == {
            name: np.float32(value) for name, value in their.items()
        }


def test_csv_logger_separator(finished, tmp_path):
    assert {line.count(",") for line in history(finished, tmp_path).splitlines()} == {7}


def test_csv_logger_append(finished, resumed, tmp_path):
    assert history(resumed, tmp_path) == history(finished, tmp_path)
