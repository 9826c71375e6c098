"""Whether a run may be resumed with the given flags."""

import dataclasses
import json

import pytest
from fakes import NoStopRequests, corpus_of, resume_one_epoch, tiny
from reference_runs import SELDOM

from trainer import build, compatibility, train
from trainer.config import Config
from trainer.errors import InputError
from trainer.labels import NEGATIVE_POSITIVE, Classes
from trainer.run import conditions


@pytest.mark.parametrize(
    "setting", [{"seed": 5}, {"vocab_size": 90}, {"lstm_units": 16}, {"batch_size": 8}, {"max_length": 9}]
)
def test_a_fixed_flag_cannot_change_even_with_allow_inexact_resume(copy_of_one_epoch, cache_dir, setting):
    (name,) = setting
    with pytest.raises(InputError, match=f"--{name} was "):
        resume_one_epoch(copy_of_one_epoch, cache_dir, allow_inexact_resume=True, **setting)


def test_a_changed_split_is_refused_by_name(copy_of_one_epoch, cache_dir):
    with pytest.raises(InputError, match=r"--train_split was train\[:31\] and is train\[:30\] now"):
        resume_one_epoch(copy_of_one_epoch, cache_dir, train_split="train[:30]")


def test_an_inexact_flag_may_change_when_allowed_and_is_then_stored(copy_of_one_epoch, cache_dir, caplog):
    with pytest.raises(InputError, match=r"--learning_rate was 0\.03 and is 0\.5 now"):
        resume_one_epoch(copy_of_one_epoch, cache_dir, learning_rate=0.5, epochs=2)
    resume_one_epoch(copy_of_one_epoch, cache_dir, learning_rate=0.5, epochs=2, allow_inexact_resume=True)
    assert "inexactly" in caplog.text
    train.run(
        {"workdir": str(copy_of_one_epoch), "cache_dir": cache_dir, "epochs": 3},
        stop_requests=NoStopRequests(),
    )
    assert "--learning_rate=0.5\n" in (copy_of_one_epoch / "config.flags").read_text()


def test_a_different_machine_is_refused_by_name_unless_allowed(
    copy_of_one_epoch, cache_dir, monkeypatch, caplog
):
    real = conditions.conditions
    monkeypatch.setattr(conditions, "conditions", lambda **kwargs: {**real(**kwargs), "cpu": "Z80"})
    with pytest.raises(InputError, match=r"cpu was '.*' and is 'Z80' now"):
        resume_one_epoch(copy_of_one_epoch, cache_dir, epochs=2)
    resume_one_epoch(copy_of_one_epoch, cache_dir, epochs=2, allow_inexact_resume=True)
    assert "is 'Z80' now" in caplog.text


def classes(*names):
    return Classes(names, tuple((name,) for name in names))


def differences(recorded, current):
    return compatibility.compare(
        {},
        Config(workdir="run"),
        recorded_conditions={},
        current_conditions={},
        recorded_fingerprints={"vocabulary": "v", **recorded},
        current_fingerprints={"vocabulary": "v", **current},
    ).reviews


def test_the_usual_two_classes_are_not_recorded_so_that_runs_of_older_versions_resume():
    assert compatibility.fingerprint_of(NEGATIVE_POSITIVE) == {}
    assert differences({}, {}) == []


def test_other_classes_are_refused_and_both_are_named():
    three, four = (compatibility.fingerprint_of(classes(*names)) for names in ("abc", "abcd"))
    assert differences(three, three) == []
    assert differences(three, four) == ["the classes were a=a; b=b; c=c and are a=a; b=b; c=c; d=d now"]
    usual = "negative=0,neg,negative,false; positive=1,pos,positive,true"
    assert differences({}, three) == [f"the classes were {usual} and are a=a; b=b; c=c now"]
    assert differences(three, {}) == [f"the classes were a=a; b=b; c=c and are {usual} now"]


def test_the_same_classes_in_another_order_are_refused(copy_of_topics, cache_dir, monkeypatch):
    monkeypatch.setattr(build, "open_corpus", lambda config: corpus_of("arts", "Politics & Law", "sports"))
    with pytest.raises(InputError, match=r"the classes were sports=sports; .* and are arts=arts; "):
        train.run(
            {"workdir": str(copy_of_topics), "cache_dir": cache_dir, "epochs": 4},
            stop_requests=NoStopRequests(),
        )


def test_a_run_of_an_older_version_resumes_with_the_names_that_it_gave_its_two_classes(
    tmp_path, cache_dir, monkeypatch
):
    open_corpus = build.open_corpus
    ham_or_spam = corpus_of("ham", "spam").classes
    monkeypatch.setattr(
        build, "open_corpus", lambda config: dataclasses.replace(open_corpus(config), classes=ham_or_spam)
    )
    given = tiny(tmp_path / "run", cache_dir, **SELDOM)
    with monkeypatch.context() as patch:
        patch.setattr(compatibility, "fingerprint_of", lambda classes: {})
        train.run({**given, "epochs": 1}, stop_requests=NoStopRequests())
    train.run({**given, "epochs": 2}, stop_requests=NoStopRequests())
    (sample,) = json.loads((tmp_path / "run" / "result.json").read_text())["sample_texts"]
    assert sample["label"] in ("Negative", "Positive")
