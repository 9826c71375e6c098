"""A trained model, loaded from a run that may be training."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from fakes import TINY

from trainer import trained_model
from trainer.errors import InputError, StorageError
from trainer.labels import NEGATIVE_POSITIVE
from trainer.run import checkpoint_files, checkpoint_reading


def step_of(workdir, **given):
    return trained_model.load({"workdir": str(workdir), **given}).step


def test_the_checkpoint_may_be_best_latest_or_a_path(finished):
    best = json.loads((finished / "result.json").read_text())["best_step"]
    assert step_of(finished) == best
    assert step_of(finished, checkpoint="latest") == 24
    assert step_of(finished, checkpoint=str(finished / "checkpoints" / "ckpt-23")) == 23
    assert step_of(finished, checkpoint=str(finished / "checkpoints" / "ckpt-23.index")) == 23


def test_the_weights_are_those_of_the_checkpoint(finished):
    trained = trained_model.load({"workdir": str(finished), "checkpoint": "latest"})
    saved = tf.train.load_checkpoint(str(finished / "checkpoints" / "ckpt-24"))
    embeddings = saved.get_tensor("model/embedding/_embeddings/.ATTRIBUTES/VARIABLE_VALUE")
    assert trained.model.embedding.embeddings.numpy().tobytes() == embeddings.tobytes()
    assert len(trained.vocabulary) == len(embeddings)


def test_loading_changes_no_files(finished):
    def files():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.rglob("*")}

    before = files()
    trained_model.load({"workdir": str(finished)})
    assert files() == before


@pytest.mark.parametrize("name", ["nothing", "checkpoints/ckpt-999", "checkpoints"])
def test_a_missing_checkpoint_is_refused_in_one_sentence(finished, name):
    with pytest.raises(InputError, match=r"--checkpoint must be best, latest or a checkpoint"):
        step_of(finished, checkpoint=str(finished / name))


def test_a_folder_without_a_run_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="--workdir must hold a checkpoint"):
        step_of(tmp_path)


def test_without_a_best_checkpoint_latest_is_suggested(copy):
    shutil.rmtree(copy / "best")
    with pytest.raises(InputError, match="--checkpoint=latest"):
        step_of(copy)


def test_a_corrupt_checkpoint_is_named(copy):
    data = copy / "checkpoints" / "ckpt-24.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(StorageError, match=r"ckpt-24 is corrupt"):
        step_of(copy, checkpoint=str(copy / "checkpoints" / "ckpt-24"))


def test_a_best_checkpoint_pruned_while_it_is_read_is_looked_up_again(copy, monkeypatch):
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
def test_a_missing_or_changed_vocabulary_is_refused(copy, content):
    (copy / "vocabulary.txt").unlink()
    if content is not None:
        (copy / "vocabulary.txt").write_bytes(content)
    with pytest.raises(StorageError, match="writes it again"):
        step_of(copy)


def test_the_classes_are_those_of_the_checkpoint(finished, finished_topics):
    assert trained_model.load({"workdir": str(finished)}).classes == NEGATIVE_POSITIVE
    trained = trained_model.load({"workdir": str(finished_topics)})
    assert trained.classes.names == ("sports", "Politics & Law", "arts")
    assert trained.classes.number_of("Sports") == 0
    assert trained.model.logit.units == 3


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": ["a"]}', '{"a": 1, "b": 2}', "[" * 10**5])
def test_malformed_classes_of_a_checkpoint_are_refused(text):
    with pytest.raises(InputError, match="must hold the classes of its run"):
        trained_model.classes_of(pathlib.Path("ckpt-1"), {"classes": text})


def test_a_threshold_is_for_two_classes(finished, finished_topics):
    trained_model.load({"workdir": str(finished), "threshold": 0.7}).check_threshold()
    trained_model.load({"workdir": str(finished_topics)}).check_threshold()
    with pytest.raises(InputError, match=r"--threshold=0\.7 is for two classes, but .* has 3: sports, "):
        trained_model.load({"workdir": str(finished_topics), "threshold": 0.7}).check_threshold()


def test_the_average_of_the_weights_is_the_model_if_there_is_one(everything):
    trained = trained_model.load({"workdir": str(everything)})
    reader = tf.train.load_checkpoint(str(trained.prefix))
    embeddings = {
        name: reader.get_tensor(f"{name}/embedding/_embeddings/.ATTRIBUTES/VARIABLE_VALUE")
        for name in ("average", "model")
    }
    assert np.array_equal(trained.model.embedding.embeddings.numpy(), embeddings["average"])
    assert not np.array_equal(embeddings["average"], embeddings["model"])


def test_free_settings_that_a_checkpoint_lacks_are_those_of_config_flags(copy):
    prefix = checkpoint_files.newest_best(copy)
    values = checkpoint_reading.read_values(prefix)
    older = b"--inter_op_threads=2\n"  # of a version in which it was not free
    values = {**values, "frozen_flags": values["frozen_flags"] + older}
    settings = trained_model.all_settings_of(copy, prefix, values)
    assert (settings["patience"], settings["inter_op_threads"]) == (TINY["patience"], 2)


def test_a_run_that_was_begun_before_there_was_a_flag_has_what_it_had_then(finished):
    prefix = checkpoint_files.newest_best(finished)
    values = checkpoint_reading.read_values(prefix)
    lines = values["frozen_flags"].decode().splitlines()
    before = {"pooling": "last", "ngrams": 0, "token_dropout": 0.0, "shards": 1}
    newer = tuple(f"--{name}=" for name in before)
    older = [line for line in lines if not line.startswith(newer)]
    assert len(older) == len(lines) - len(newer)
    settings = trained_model.settings_of(prefix, {**values, "frozen_flags": "\n".join(older).encode()})
    assert {name: settings[name] for name in before} == before
