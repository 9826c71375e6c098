"""All metrics of a trained model."""

import json
import pathlib
import types

import pytest
from fakes import NoStopRequests, corpus_of, tiny
from reference_runs import SELDOM

from trainer import build, evaluate, train
from trainer.config import Config
from trainer.errors import InputError
from trainer.labels import Classes


@pytest.fixture
def trained(finished, cache_dir):
    """Settings that read a trained model."""
    return {"workdir": str(finished), "cache_dir": cache_dir}


def evaluate_to_json(given, tmp_path):
    evaluate.run({**given, "output": str(tmp_path / "report.json")})
    return json.loads((tmp_path / "report.json").read_text())


def test_the_test_split_has_the_metrics_of_the_final_evaluation(trained, tmp_path, capsys):
    result = json.loads((pathlib.Path(trained["workdir"]) / "result.json").read_text())
    metrics = evaluate_to_json(trained, tmp_path)
    assert metrics["accuracy"] == result["test"]["accuracy"]
    assert metrics["loss"] == pytest.approx(result["test"]["loss"], rel=1e-6)
    assert "predicted positive" in capsys.readouterr().out


def test_another_split_or_a_file_can_be_evaluated(trained, tmp_path):
    assert evaluate_to_json({**trained, "split": "validation[:7]"}, tmp_path)["reviews"] == 7
    file = tmp_path / "own.csv"
    file.write_text("text,label\nA wonderful film.,pos\nDull.,neg\n")
    assert evaluate_to_json({**trained, "input": str(file)}, tmp_path)["reviews"] == 2


def test_an_unknown_split_is_refused_in_one_sentence(trained, tmp_path):
    with pytest.raises(InputError, match="validation"):
        evaluate_to_json({**trained, "split": "tests"}, tmp_path)


def test_a_file_without_reviews_is_refused_in_one_sentence(trained, tmp_path):
    (tmp_path / "own.csv").write_text("text,label\n")
    with pytest.raises(InputError, match="has none"):
        evaluate_to_json({**trained, "input": str(tmp_path / "own.csv")}, tmp_path)


def test_three_classes_have_the_metrics_of_the_final_evaluation(topics, finished_topics, tmp_path, capsys):
    given = {"workdir": str(finished_topics)}
    result = json.loads((finished_topics / "result.json").read_text())["test"]
    facts = evaluate_to_json(given, tmp_path)
    assert (facts["accuracy"], facts["macro_f1"]) == (result["accuracy"], pytest.approx(result["f1"]))
    assert facts["loss"] == pytest.approx(result["loss"], rel=1e-6)
    assert [of_class["name"] for of_class in facts["classes"]] == list(topics)
    assert [of_class["reviews"] for of_class in facts["classes"]] == [sum(row) for row in facts["confusion"]]
    assert "2 Politics & Law" in capsys.readouterr().out
    with pytest.raises(InputError, match="--threshold"):
        evaluate_to_json({**given, "threshold": 0.5}, tmp_path)


def test_a_threshold_moves_predictions_and_not_the_loss(trained, tmp_path):
    usual, all_positive = (
        evaluate_to_json({**trained, "threshold": value}, tmp_path) for value in (None, 0.0)
    )
    assert (all_positive["true_negatives"], all_positive["false_negatives"]) == (0, 0)
    assert all_positive["loss"] == usual["loss"]


def test_another_corpus_may_name_or_order_the_classes_otherwise_but_must_have_the_same(
    trained, tmp_path, monkeypatch
):
    given, facts = {**trained, "dataset": "topics", "split": "test"}, {}
    for names in (("neg", "pos"), ("pos", "neg")):
        monkeypatch.setattr(build, "open_corpus", lambda config, names=names: corpus_of(*names))
        facts[names] = evaluate_to_json(given, tmp_path)
    # The labels of the second corpus are the others, for the same texts.
    one, other = facts.values()
    assert other["true_positives"] == one["false_positives"]
    monkeypatch.setattr(build, "open_corpus", lambda config: corpus_of("neg", "pos", "neutral"))
    with pytest.raises(
        InputError, match="classes, negative, positive, but topics test has the class neutral"
    ):
        evaluate_to_json(given, tmp_path)


class TestRows:
    """Rows of the user's own files, whose labels are as they are spelled there."""

    CLASSES = Classes(("bad", "good"), (("1", "2"), ("4", "5")))

    @pytest.fixture(autouse=True)
    def _in_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    def numbers(self, *labels, **given):
        rows = "".join(f"text,{label}\n" for label in labels)
        pathlib.Path("own.csv").write_text(f"text,label\n{rows}")
        config = Config(workdir="run", input="own.csv", **given)
        trained = types.SimpleNamespace(config=config, classes=self.CLASSES, given=given)
        name, batches = evaluate._reviews(trained)
        assert name == "own.csv"
        return [number for _, numbers in batches for number in numbers]

    def test_labels_are_mapped_to_the_classes_of_the_run(self, caplog):
        assert self.numbers("5", 1, "2.0") == [1, 0, 0]
        assert not [record for record in caplog.records if record.levelname == "WARNING"]

    def test_labels_of_another_spelling_are_named_by_the_flag(self):
        assert self.numbers("1", "0", "x", labels="good=0;bad=1") == [0, 1]
        with pytest.raises(InputError, match=r"class b, which is none of them; .*--labels='bad=4;good=x'"):
            self.numbers("1", labels="good=4;b=x")

    def test_rows_of_no_class_and_bad_rows_are_skipped_with_one_summary(self, caplog):
        assert self.numbers("5", "3", "3", "1", "") == [1, 0]
        (record,) = (record for record in caplog.records if record.levelname == "WARNING")
        assert record.getMessage() == (
            "Of 5 rows in own.csv, 3 could not be evaluated: 2 rows because its label means no class of the "
            "run (first in line 3: its label is '3'), 1 row because it has no label (first in line 6: its "
            "label is '')."
        )

    def test_rows_of_no_class_alone_are_an_error_whose_remedy_works(self):
        with pytest.raises(InputError, match=r"of 2 rows of own\.csv none does: .*--labels='bad=0;good=1'"):
            self.numbers("no", "yes")
        assert self.numbers("no", "yes", labels="bad=no;good=yes") == [0, 1]

    def test_labels_of_which_most_mean_no_class_are_refused(self):
        with pytest.raises(
            InputError, match=r"of 5 rows of own\.csv 2 do: 3 rows because its label means no"
        ):
            self.numbers("1", "2", "3", "6", "7")

    def test_a_row_of_no_class_is_an_error_when_bad_rows_stop(self):
        with pytest.raises(InputError, match=r"line 3 of own\.csv .* its label is '3'; .*--bad_rows=skip"):
            self.numbers("5", "3", bad_rows="stop")

    def test_a_file_without_labels_is_an_error_that_lists_its_columns(self):
        pathlib.Path("a.csv").write_text("text,stars and stripes\ngood,long ago\n")
        config = Config(workdir="run", input="a.csv")
        with pytest.raises(
            InputError, match=r"must have the columns text and label, .* text \(good\), stars"
        ):
            evaluate._reviews(types.SimpleNamespace(config=config, classes=self.CLASSES, given={}))


def test_a_folder_of_a_folder_for_each_class_can_be_evaluated(trained, tmp_path):
    for name in ("pos", "neg"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "1.txt").write_text("A wonderful film.")
    facts = evaluate_to_json({**trained, "input": str(tmp_path / "in")}, tmp_path)
    assert facts["reviews"] == 2
    assert [sum(row) for row in facts["confusion"]] == [1, 1]


def test_an_output_does_not_overwrite_the_input(trained, tmp_path):
    (tmp_path / "report.json").write_text('{"text": "good", "label": 1}\n')
    with pytest.raises(InputError, match="another file"):
        evaluate_to_json({**trained, "input": str(tmp_path / "report.json")}, tmp_path)
    assert (tmp_path / "report.json").read_text().startswith('{"text"')


def test_own_reviews_are_found_from_any_working_directory(tmp_path, cache_dir, monkeypatch):
    """Their drawn splits, too; only the run directory is named."""
    # So many words that the model has the size of the tiny run's, whose traced step it shares.
    reviews = "".join(f"good film {n};pos\nbad film {n + 60};neg\n" for n in range(60))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "own.csv").write_text(f"Review;Verdict\n{reviews}")
    given = {
        **{"dataset": "own.csv", "text_column": "review", "label_column": "verdict"},
        **{"train_split": "train", "validation_split": "validation", "test_split": "test", "epochs": 1},
    }
    monkeypatch.chdir(tmp_path / "a")
    train.run(tiny(tmp_path / "run", cache_dir, **given, **SELDOM), stop_requests=NoStopRequests())
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    monkeypatch.chdir(tmp_path / "b")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other cache"))
    workdir = {"workdir": str(tmp_path / "run")}
    facts = evaluate_to_json(workdir, tmp_path)
    assert (facts["reviews"], facts["accuracy"]) == (12, result["test"]["accuracy"])
    assert facts["loss"] == pytest.approx(result["test"]["loss"], rel=1e-6)
    assert evaluate_to_json({**workdir, "split": "validation"}, tmp_path)["reviews"] == 12
    assert evaluate_to_json({**workdir, "split": "train+test"}, tmp_path)["reviews"] == 108
    # What a run records is not trusted with where to write.
    assert [path.name for path in (tmp_path / "other cache" / "trainer").iterdir()] == ["counts"]
