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
from fakes import NoStopRequests, command, tiny
from processes import popen

from trainer import build, export, predict, prepare, session, trained_model
from trainer.config import Config
from trainer.data.corpus import open_corpus
from trainer.data.vocabulary import build_vocabulary
from trainer.errors import InputError, StorageError
from trainer.inference import logits_of
from trainer.labels import NEGATIVE_POSITIVE

TEXTS = ["A wonderful film.", "", "Dull, and not even short.", "zzz", "good " * 40]


def export_once(build_once, name, trained, cache_dir):
    """Settings of a copy of a trained run that was exported."""

    def make(folder):
        run = shutil.copytree(trained, folder / "run")
        export.run({"workdir": str(run), "cache_dir": cache_dir})

    return {"workdir": str(build_once(name, make) / "run"), "cache_dir": cache_dir}


@pytest.fixture(scope="session")
def exported(build_once, finished, cache_dir):
    """Settings of a tiny run that was exported."""
    return export_once(build_once, "exported", finished, cache_dir)


@pytest.fixture(scope="session")
def exported_everything(build_once, everything, cache_dir):
    """Settings of a tiny run with everything on that was exported."""
    return export_once(build_once, "exported everything", everything, cache_dir)


@pytest.fixture
def copy_of_exported(exported, tmp_path):
    """Settings of a copy of it, to be written."""
    return {**exported, "workdir": str(shutil.copytree(exported["workdir"], tmp_path / "run"))}


@pytest.fixture
def short_probes(monkeypatch):
    """What is written is checked by short texts: Keras takes seconds for one of 250 tokens."""
    monkeypatch.setattr(
        export, "_PROBES", (*export._PROBES[:2], "Not good, not even once.", export._PROBES[-1])
    )


def expected(given):
    trained = trained_model.load(given)
    return logits_of(trained.model, trained.vocabulary, TEXTS, max_length=trained.config.max_length)


WITHOUT_TRAINER = """
import sys
try:
    import trainer
    sys.exit(9)
except ImportError:
    pass
import keras, tensorflow as tf
texts = tf.constant({texts!r})
for saved_model, keras_file in zip(sys.argv[1::2], sys.argv[2::2]):
    loaded = tf.saved_model.load(saved_model)
    served = loaded.serve(texts)["logit"]
    model = keras.models.load_model(keras_file)
    predicted = model.predict(texts, verbose=0)[:, 0]
    model.run_eagerly = saved_model != sys.argv[1]  # one graph of a training step is enough
    model.fit(texts, tf.zeros(len(texts)), verbose=0)
    print(*served.numpy())
    print(*predicted)
"""
"""What another program does with exports: it loads both forms, asks them for logits, and trains on."""


@pytest.fixture(scope="session")
def logits_without_trainer(build_once, exported, exported_everything):
    """The logits of `TEXTS` where `trainer` cannot be imported: two lists for each of the two exports.

    By the SavedModel and by the .keras file.
    """
    export_files = [
        str(path)
        for given in (exported, exported_everything)
        for path in (saved_model(given), pathlib.Path(given["workdir"], "export", "model.keras"))
    ]

    def ask(folder):
        with (folder / "logits").open("w") as answers:
            program = [sys.executable, "-c", WITHOUT_TRAINER.format(texts=TEXTS), *export_files]
            subprocess.run(program, cwd=folder, stdout=answers, check=True)

    answers = (build_once("logits without trainer", ask) / "logits").read_text()
    return [[float(value) for value in line.split()] for line in answers.splitlines()]


def saved_model(given):
    (path,) = (pathlib.Path(given["workdir"]) / "export" / "saved_model").iterdir()
    return path


def test_the_saved_model_takes_raw_texts(exported, logits_without_trainer):
    served, *_ = logits_without_trainer
    assert served == pytest.approx(expected(exported), abs=1e-5)


def test_the_saved_model_serves_logit_probability_and_label_for_any_batch_size(exported):
    serve = tf.saved_model.load(str(saved_model(exported))).signatures["serving_default"]
    for texts in (TEXTS, TEXTS[:1], ["", ""], []):
        outputs = serve(texts=tf.constant(texts, tf.string))
        assert (
            outputs["logit"].shape == outputs["probability"].shape == outputs["label"].shape == (len(texts),)
        )
        np.testing.assert_allclose(outputs["probability"], tf.sigmoid(outputs["logit"]))
        np.testing.assert_array_equal(outputs["label"], outputs["logit"].numpy() > 0)
        names = [("negative", "positive")[label] for label in outputs["label"]]
        assert [name.decode() for name in outputs["class_name"].numpy()] == names


def test_stock_keras_loads_the_keras_file_predicts_and_fits(exported, logits_without_trainer):
    _, predicted, *_ = logits_without_trainer
    assert predicted == pytest.approx(expected(exported), abs=1e-5)


def test_pooling_ngrams_and_the_average_of_the_weights_are_exported(
    exported_everything, logits_without_trainer
):
    *_, served, predicted = logits_without_trainer
    assert served == pytest.approx(expected(exported_everything), abs=1e-5)
    assert predicted == pytest.approx(expected(exported_everything), abs=1e-5)
    assert len({round(logit, 4) for logit in served}) == len(TEXTS)


def test_a_repeated_export_replaces_its_own_step_and_keeps_the_others(
    copy_of_exported, tmp_path, short_probes
):
    folder = tmp_path / "run" / "export"
    (folder / "saved_model" / "15" / "older").touch()
    shutil.copytree(folder / "saved_model" / "15", folder / "saved_model" / "24")
    export.run({**copy_of_exported, "checkpoint": "latest"})
    assert not (folder / "saved_model" / "24" / "older").exists()
    assert (folder / "saved_model" / "15" / "older").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["model.keras", "saved_model"]
    assert sorted(path.name for path in (folder / "saved_model").iterdir()) == ["15", "24"]


def test_a_symlinked_export_folder_keeps_other_versions_and_foreign_files(
    copy_of_exported, tmp_path, short_probes
):
    serving, link = tmp_path / "serving", tmp_path / "run" / "export" / "saved_model"
    link.rename(serving)
    (serving / "7").mkdir()
    (serving / "7" / "saved_model.pb").write_bytes(b"precious")
    (serving / "15" / "older").touch()
    link.symlink_to(serving)
    export.run(copy_of_exported)
    assert sorted(path.name for path in serving.iterdir()) == ["15", "7"]
    assert (serving / "7" / "saved_model.pb").read_bytes() == b"precious"
    assert not (serving / "15" / "older").exists()
    shutil.rmtree(serving / "15")
    (serving / "7").rename(serving / "15")
    with pytest.raises(InputError, match="move it away"):
        export.run(copy_of_exported)
    assert (serving / "15" / "saved_model.pb").read_bytes() == b"precious"


def test_two_concurrent_exports_succeed_and_leave_a_complete_export(copy_of_exported, tmp_path):
    arguments = command({**copy_of_exported, "mode": "export"})
    exports = [popen(arguments, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in exports]
    assert [process.returncode for process in exports] == [0, 0], errors
    folder = tmp_path / "run" / "export"
    assert sorted(path.name for path in folder.iterdir()) == ["model.keras", "saved_model"]
    texts = tf.constant(TEXTS)
    assert export._load_saved_model(str(folder / "saved_model" / "15"), texts).shape == (len(TEXTS),)


@pytest.mark.parametrize("loader", ["_load_keras", "_load_saved_model"])
def test_an_export_that_disagrees_with_the_run_never_replaces_an_older_one(
    copy_of_exported, monkeypatch, loader, short_probes
):
    def files():
        folder = pathlib.Path(copy_of_exported["workdir"]) / "export"
        return {
            path: path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and "new." not in str(path)
        }

    before, real = files(), getattr(export, loader)
    monkeypatch.setattr(export, loader, lambda *given: real(*given) + 0.1)
    with pytest.raises(StorageError, match="the older export stays"):
        export.run({**copy_of_exported, "checkpoint": "latest"})
    assert {path for path in before if path not in files()} == set()


@pytest.mark.parametrize("free_mib", [0.02, 0.1])
def test_a_full_disk_is_reported_in_one_sentence_and_the_old_export_still_loads(
    exported, small_disk, free_mib, short_probes
):
    folder = small_disk(64)
    run = shutil.copytree(exported["workdir"], folder / "run")
    small_disk(shutil.disk_usage(folder).used / 2**20 + free_mib)
    with pytest.raises(StorageError, match="could not be written"):
        export.run({**exported, "workdir": str(run)})
    for loader, path in (
        (export._load_keras, run / "export" / "model.keras"),
        (export._load_saved_model, saved_model({"workdir": run})),
    ):
        assert loader(str(path), tf.constant(TEXTS)).shape == (len(TEXTS),)


def test_a_token_that_is_not_utf8_gets_a_name_that_no_token_has():
    from trainer.data.vocabulary import Vocabulary

    assert export._words(Vocabulary((b"", b"[UNK]", b"good", b"na\xefve"))) == ["good", "[6e61ef7665]"]


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TFDS_DATA_DIR"), reason="needs real IMDB: set TFDS_DATA_DIR")
def test_predict_saved_model_and_keras_agree_on_a_thousand_real_reviews(tmp_path, short_probes):
    splits = {"train_split": "train[:640]", "validation_split": "", "monitor": "loss", "test_split": ""}
    cache = str(tmp_path / "cache")
    given = {
        "workdir": str(tmp_path / "run"),
        "cache_dir": cache,
        "dataset": "imdb_reviews",
        "embedding_dim": 16,
        "lstm_units": 16,
        **splits,
    }
    run = session.open_session(given, stop_requests=NoStopRequests())
    # Weights of the size of trained ones; XLA would take longer to compile a training step than all the rest.
    model, random = run.state.model, np.random.default_rng(0)
    for weights in model.trainable_variables:
        weights.assign(random.normal(scale=0.3, size=weights.shape))
    model.ngrams.weights.assign(tf.ones(model.ngrams.shape))
    prepare.prepare_directory(run)
    export.run({**given, "checkpoint": "latest"})
    corpus = open_corpus(name="imdb_reviews", data_dir=None, cache_dir=cache)
    texts = np.concatenate([texts for texts, _ in corpus.reviews("test[:500]+test[-500:]")])
    texts = np.array(sorted(texts, key=len), object)  # so that batches have little padding
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


@pytest.fixture(scope="session")
def exported_topics(build_once, finished_topics):
    """Settings of a tiny run of three classes that was exported."""

    def make(folder):
        export.run({"workdir": str(shutil.copytree(finished_topics, folder / "run"))})

    return {"workdir": str(build_once("exported topics", make) / "run")}


TOPIC_TEXTS = [*TEXTS, *(f"word{word} " * 3 for word in range(8))]


def test_predict_saved_model_and_keras_agree_on_three_classes(exported_topics, tmp_path):
    predict.run(
        {**exported_topics, "text": tuple(TOPIC_TEXTS), "output": str(tmp_path / "predictions.jsonl")}
    )
    answers = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    ours = np.array([list(answer["probabilities"].values()) for answer in answers])
    loaded = tf.saved_model.load(str(saved_model(exported_topics)))
    served = loaded.signatures["serving_default"](texts=tf.constant(TOPIC_TEXTS))
    model = keras.models.load_model(pathlib.Path(exported_topics["workdir"], "export", "model.keras"))
    np.testing.assert_allclose(served["probabilities"], ours, rtol=0, atol=1e-5)
    np.testing.assert_allclose(tf.nn.softmax(served["logits"]), ours, rtol=0, atol=1e-5)
    keras_own = model.predict(tf.constant(TOPIC_TEXTS), verbose=0)
    np.testing.assert_allclose(tf.nn.softmax(keras_own), ours, rtol=0, atol=1e-5)
    assert [name.decode() for name in served["class_name"].numpy()] == [answer["label"] for answer in answers]
    assert served["label"].numpy().tolist() == ours.argmax(axis=1).tolist()
    assert np.std(ours) > 0.01
    model.run_eagerly = True  # saves the graph of a training step, which other exports have shown
    metrics = model.fit(tf.constant(TOPIC_TEXTS), tf.constant([0, 1, 2] * 4 + [0]), verbose=0).history
    assert set(metrics) == {"loss", "accuracy"}


def test_a_saved_model_names_the_classes(exported, exported_topics):
    for given, names in (
        (exported, ["negative", "positive"]),
        (exported_topics, ["sports", "Politics & Law", "arts"]),
    ):
        facts = json.loads((saved_model(given) / "assets.extra" / "run.json").read_text())
        assert facts["classes"] == names


CHINESE = ["这部电影很好看！", "Good film,\nagain\r\u2028\x85é", "", "\n", "no 好 no"]
HTML = ["<p>Not&nbsp;good</p>", "good <b>film</b>", "5 < 6", *(f"<br/>{text}" for text in CHINESE)]


@pytest.mark.parametrize(
    ("settings", "texts"),
    [
        pytest.param({"tokens": "characters"}, CHINESE, marks=pytest.mark.slow),
        ({"tokens": "characters", "strip_html": True}, HTML),
    ],
)
def test_exports_make_the_tokens_of_the_run(tmp_path, monkeypatch, caplog, short_probes, settings, texts):
    config = Config(**{**tiny(tmp_path, ""), **settings, "vocab_size": 200})
    tokenizer = build.tokenizer_of(config)
    vocabulary = build_vocabulary(batches=[[*texts, "not good film"]], vocab_size=200, tokenizer=tokenizer)
    model = build.make_model(config, len(vocabulary), NEGATIVE_POSITIVE)
    prefix = tmp_path / "best" / "ckpt-7"
    trained = trained_model.TrainedModel({}, config, prefix, vocabulary, NEGATIVE_POSITIVE, model)
    monkeypatch.setattr(trained_model, "load", lambda given: trained)
    export.run({})
    expected = logits_of(model, vocabulary, texts, max_length=0)
    assert np.ptp(expected) > 1e-3
    saved_model = tf.saved_model.load(str(tmp_path / "export" / "saved_model" / "7"))
    served = saved_model.serve(tf.constant(texts))
    np.testing.assert_allclose(served["logit"], expected, atol=1e-5)
    loaded = keras.models.load_model(tmp_path / "export" / "model.keras")
    plain = tokenizer.stripped(texts)
    np.testing.assert_allclose(loaded(plain)[:, 0], expected, atol=1e-5)
    assert ("model.keras does not remove HTML" in caplog.text) == config.strip_html
