"""A trained model, read from a run that may be training."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from trainer import InputError, StorageError
from trainer.data.vocabulary import Vocabulary
from trainer.model.classifier import Classifier
from trainer.run import checkpoint_files, checkpoint_reading
from trainer.trained import BATCH_SIZE, logits, make_predict_step, open_trained, probabilities, write_answer

VOCABULARY = Vocabulary(tokens=(b"", b"[UNK]", b"the", b"movie", b"was", b"good"))


@pytest.fixture(scope="module")
def model():
    return Classifier(vocab_size=50, embedding_dim=8, lstm_units=8, dense_units=8, dropout=0.5, seed=0)


def step_of(workdir, **given):
    return open_trained({"workdir": str(workdir), **given}).step


def test_best_latest_or_a_path(finished):
    best = json.loads((finished / "result.json").read_text())["best_step"]
    assert step_of(finished) == best
    assert step_of(finished, checkpoint="latest") == 24
    assert step_of(finished, checkpoint=str(finished / "checkpoints" / "ckpt-23")) == 23
    assert step_of(finished, checkpoint=str(finished / "checkpoints" / "ckpt-23.index")) == 23


def test_the_weights_are_those_of_the_checkpoint(finished):
    trained = open_trained({"workdir": str(finished), "checkpoint": "latest"})
    saved = tf.train.load_checkpoint(str(finished / "checkpoints" / "ckpt-24"))
    embeddings = saved.get_tensor("model/embedding/_embeddings/.ATTRIBUTES/VARIABLE_VALUE")
    assert trained.model.embedding.embeddings.numpy().tobytes() == embeddings.tobytes()
    assert len(trained.vocabulary) == len(embeddings)


def test_reading_changes_nothing(finished):
    def files():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.rglob("*")}

    before = files()
    open_trained({"workdir": str(finished)})
    assert files() == before


@pytest.mark.parametrize("name", ["nothing", "checkpoints/ckpt-999", "checkpoints"])
def test_a_checkpoint_that_is_not_there_is_one_sentence(finished, name):
    with pytest.raises(InputError, match=r"--checkpoint must be best, latest or a checkpoint"):
        step_of(finished, checkpoint=str(finished / name))


def test_a_folder_without_a_run_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="--workdir must hold a checkpoint"):
        step_of(tmp_path)


def test_a_run_without_a_best_says_so(copy):
    shutil.rmtree(copy / "best")
    with pytest.raises(InputError, match="--checkpoint=latest"):
        step_of(copy)


def test_a_damaged_checkpoint_is_named(copy):
    data = copy / "checkpoints" / "ckpt-24.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(StorageError, match=r"ckpt-24 is damaged"):
        step_of(copy, checkpoint=str(copy / "checkpoints" / "ckpt-24"))


def test_a_best_that_is_pruned_while_it_is_read_is_looked_up_again(copy, monkeypatch):
    best = checkpoint_files.newest_best(copy)
    newer = copy / "best" / "ckpt-24"
    restore = checkpoint_reading.restore_parts

    def prune_and_restore(prefix, **parts):
        if prefix == best:
            for path in best.parent.glob("ckpt-*"):
                path.unlink()
            for path in (copy / "checkpoints").glob("ckpt-24.*"):
                shutil.copy(path, newer.parent)
        restore(prefix, **parts)

    monkeypatch.setattr(checkpoint_reading, "restore_parts", prune_and_restore)
    assert step_of(copy) == 24


@pytest.mark.parametrize("content", [None, b"\n[UNK]\nother", b"garbage"])
def test_a_vocabulary_that_is_not_the_runs_is_refused(copy, content):
    (copy / "vocabulary.txt").unlink()
    if content is not None:
        (copy / "vocabulary.txt").write_bytes(content)
    with pytest.raises(StorageError, match="writes it anew"):
        step_of(copy)


def test_a_text_has_the_logit_of_its_tokens(model):
    expected = model(tf.constant([[2, 3, 4, 1]]), tf.constant([4])).numpy()
    assert logits(model, VOCABULARY, ["The movie was ODD!"], max_length=0) == pytest.approx(expected, rel=1e-5)


def test_a_text_is_read_as_far_as_training_reads(model):
    long, short = logits(model, VOCABULARY, ["the movie was good", "the movie"], max_length=2)
    assert long == pytest.approx(short, rel=1e-5)


def test_texts_without_a_token_have_a_probability(model):
    assert all(0 < value < 1 for value in probabilities(logits(model, VOCABULARY, ["", "?!"], max_length=0)))


def test_the_order_of_the_texts_is_that_of_the_logits(model):
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(["the", "movie", "was", "good"], random.integers(0, 30))) for _ in range(2 * BATCH_SIZE + 3)]
    together = logits(make_predict_step(model), VOCABULARY, texts, max_length=0)
    for at in (0, 1, BATCH_SIZE, len(texts) - 1):
        assert logits(model, VOCABULARY, [texts[at]], max_length=0)[0] == pytest.approx(together[at], rel=1e-5)


def test_an_answer_goes_where_output_says(tmp_path, capsys):
    write_answer("", {"a": 1})
    assert capsys.readouterr().out == ""
    write_answer("-", {"a": 1})
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    write_answer(str(tmp_path / "answer.json"), {"a": 1})
    assert json.loads((tmp_path / "answer.json").read_text()) == {"a": 1}
