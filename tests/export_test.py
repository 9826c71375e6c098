"""Exports, used where this program cannot be imported."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from fakes import NoStopRequests
from processes import popen

from trainer import export, predict, train, trained_model
from trainer.data.corpus import open_corpus
from trainer.errors import InputError, StorageError
from trainer.inference import logits_of

TEXTS = ["A wonderful film.", "", "Dull, and not even short.", "zzz", "good " * 40]


@pytest.fixture(scope="session")
def exported(build_once, finished, cache_dir):
    """Settings of a tiny run that was exported."""

    def make(folder):
        run = shutil.copytree(finished, folder / "run")
        export.run({"workdir": str(run), "cache_dir": cache_dir})

    return {"workdir": str(build_once("exported", make) / "run"), "cache_dir": cache_dir}


def expected(given):
    trained = trained_model.load(given)
    return logits_of(trained.model, trained.vocabulary, TEXTS, max_length=trained.config.max_length)


def run_without_trainer(tmp_path, program, *arguments):
    """What a program prints where `trainer` cannot be imported."""
    program = (
        f"import sys\ntry:\n    import trainer\n    sys.exit(9)\nexcept ImportError:\n    pass\n{program}"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    return [float(value) for value in completed.stdout.split()]


def saved_model(given):
    (path,) = (pathlib.Path(given["workdir"]) / "export" / "saved_model").iterdir()
    return path


def test_the_saved_model_takes_raw_texts(exported, tmp_path):
    program = (
        f"import tensorflow as tf\nmodel = "
        f"tf.saved_model.load(sys.argv[1])\nprint(*model.serve(tf.constant({TEXTS!r}))['logit'].numpy())"
    )
    assert run_without_trainer(tmp_path, program, str(saved_model(exported))) == pytest.approx(
        expected(exported), abs=1e-5
    )


def test_the_saved_model_serves_logit_probability_and_label_for_any_batch_size(exported):
    serve = tf.saved_model.load(str(saved_model(exported))).signatures["serving_default"]
    for texts in (TEXTS, TEXTS[:1], ["", ""], []):
        outputs = serve(texts=tf.constant(texts, tf.string))
        assert (
            outputs["logit"].shape == outputs["probability"].shape == outputs["label"].shape == (len(texts),)
        )
        np.testing.assert_allclose(outputs["probability"], tf.sigmoid(outputs["logit"]))
        np.testing.assert_array_equal(outputs["label"], outputs["logit"].numpy() > 0)


def test_stock_keras_loads_the_keras_file_predicts_and_fits(exported, tmp_path):
    program = (
        "import keras, tensorflow as tf\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        f"texts = tf.constant({TEXTS!r})\n"
        "print(*model.predict(texts, verbose=0)[:, 0])\n"
        "model.fit(texts, tf.zeros(len(texts)), verbose=0)\n"
    )
    file = pathlib.Path(exported["workdir"]) / "export" / "model.keras"
    assert run_without_trainer(tmp_path, program, str(file)) == pytest.approx(expected(exported), abs=1e-5)


def test_a_repeated_export_replaces_its_own_step_and_keeps_the_others(exported, tmp_path):
    given = {**exported, "workdir": str(shutil.copytree(exported["workdir"], tmp_path / "run"))}
    export.run(given)
    export.run({**given, "checkpoint": "latest"})
    folder = tmp_path / "run" / "export"
    assert sorted(path.name for path in folder.iterdir()) == ["model.keras", "saved_model"]
    assert sorted(path.name for path in (folder / "saved_model").iterdir()) == ["15", "24"]


def test_a_symlinked_export_folder_keeps_other_versions_and_foreign_files(exported, tmp_path):
    given = {**exported, "workdir": str(shutil.copytree(exported["workdir"], tmp_path / "run"))}
    serving, link = tmp_path / "serving", tmp_path / "run" / "export" / "saved_model"
    shutil.rmtree(link)
    (serving / "7").mkdir(parents=True)
    (serving / "7" / "saved_model.pb").write_bytes(b"precious")
    link.symlink_to(serving)
    for _ in range(2):
        export.run(given)
    assert sorted(path.name for path in serving.iterdir()) == ["15", "7"]
    assert (serving / "7" / "saved_model.pb").read_bytes() == b"precious"
    shutil.rmtree(serving / "15")
    (serving / "7").rename(serving / "15")
    with pytest.raises(InputError, match="move it away"):
        export.run(given)
    assert (serving / "15" / "saved_model.pb").read_bytes() == b"precious"


def test_two_concurrent_exports_succeed_and_leave_a_complete_export(exported, tmp_path):
    given = {**exported, "workdir": str(shutil.copytree(exported["workdir"], tmp_path / "run"))}
    command = [
        sys.executable,
        "-m",
        "trainer.main",
        "--mode=export",
        *(f"--{name}={value}" for name, value in given.items()),
    ]
    exports = [popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in exports]
    assert [process.returncode for process in exports] == [0, 0], errors
    folder = tmp_path / "run" / "export"
    assert sorted(path.name for path in folder.iterdir()) == ["model.keras", "saved_model"]
    assert export._load_saved_model(str(folder / "saved_model" / "15")).shape == (4,)


@pytest.mark.parametrize("loader", ["_load_keras", "_load_saved_model"])
def test_an_export_that_disagrees_with_the_run_never_replaces_an_older_one(
    exported, tmp_path, monkeypatch, loader
):
    given = {**exported, "workdir": str(shutil.copytree(exported["workdir"], tmp_path / "run"))}

    def files():
        folder = pathlib.Path(given["workdir"]) / "export"
        return {
            path: path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and "new." not in str(path)
        }

    before, real = files(), getattr(export, loader)
    monkeypatch.setattr(export, loader, lambda path: real(path) + 0.1)
    with pytest.raises(StorageError, match="the older export stays"):
        export.run({**given, "checkpoint": "latest"})
    assert {path for path in before if path not in files()} == set()


@pytest.mark.parametrize("free_mib", [0.02, 0.1])
def test_a_full_disk_is_reported_in_one_sentence_and_the_old_export_still_loads(
    exported, small_disk, free_mib
):
    folder = small_disk(64)
    run = shutil.copytree(exported["workdir"], folder / "run")
    export.run({**exported, "workdir": str(run)})
    small_disk(shutil.disk_usage(folder).used / 2**20 + free_mib)
    with pytest.raises(StorageError, match="could not be written"):
        export.run({**exported, "workdir": str(run)})
    for loader, path in (
        (export._load_keras, run / "export" / "model.keras"),
        (export._load_saved_model, saved_model({"workdir": run})),
    ):
        assert loader(str(path)).shape == (4,)


def test_a_token_that_is_not_utf8_gets_a_name_that_no_token_has():
    from trainer.data.vocabulary import Vocabulary

    assert export._words(Vocabulary((b"", b"[UNK]", b"good", b"na\xefve"))) == ["good", "[6e61ef7665]"]


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TFDS_DATA_DIR"), reason="needs real IMDB: set TFDS_DATA_DIR")
def test_predict_saved_model_and_keras_agree_on_a_thousand_real_reviews(tmp_path):
    splits = {"train_split": "train[:640]", "validation_split": "", "monitor": "loss", "test_split": ""}
    cache = str(tmp_path / "cache")
    given = {
        "workdir": str(tmp_path / "run"),
        "cache_dir": cache,
        "dataset": "imdb_reviews",
        "learning_rate": 0.01,
        "epochs": 3,
        **splits,
    }
    train.run(given, stop_requests=NoStopRequests())
    export.run({**given, "checkpoint": "latest"})
    corpus = open_corpus(name="imdb_reviews", data_dir=None, cache_dir=cache)
    texts = np.concatenate([texts for texts, _ in corpus.reviews("test[:500]+test[-500:]")])
    with (tmp_path / "reviews.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": text.decode()}) + "\n" for text in texts)
    predictions = tmp_path / "predictions.jsonl"
    requested = {"checkpoint": "latest", "input": str(tmp_path / "reviews.jsonl"), "output": str(predictions)}
    predict.run({**given, **requested})
    ours = np.array([json.loads(line)["probability"] for line in predictions.read_text().splitlines()])
    served = tf.saved_model.load(str(saved_model(given)))
    stock = keras.models.load_model(tmp_path / "run" / "export" / "model.keras")
    batches = [tf.constant(texts[start : start + 100]) for start in range(0, 1000, 100)]
    theirs = np.concatenate([served.serve(batch)["probability"] for batch in batches])
    keras_own = tf.sigmoid(stock.predict(tf.constant(texts), batch_size=100, verbose=0))[:, 0]
    assert len(ours) == 1000
    assert np.std(ours) > 0.1
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5)
    np.testing.assert_allclose(keras_own, ours, rtol=0, atol=1e-5)
