"""The plot of a run's curves."""

import json
import runpy
import sys

import plot_history
import pytest
from matplotlib import image, pyplot


@pytest.fixture(autouse=True)
def _close_figures():
    pyplot.close("all")
    yield
    pyplot.close("all")


def panels(workdirs, output):
    plot_history.plot(workdirs, output)
    return pyplot.gcf().axes


def drawn(panel):
    return {line.get_label(): line.get_xydata().tolist() for line in panel.get_lines()}


def test_the_script_writes_a_png(finished, tmp_path, monkeypatch):
    arguments = [str(finished), str(finished), f"--output={tmp_path / 'a.png'}"]
    monkeypatch.setattr(sys, "argv", [plot_history.__file__, *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(plot_history.__file__, run_name="__main__")
    assert end.value.code == 0
    height, width, _ = image.imread(tmp_path / "a.png").shape
    assert width > height > 400


def test_loss_and_accuracy_are_drawn_with_best_and_stop(finished, tmp_path):
    result = json.loads((finished / "result.json").read_text())
    best, stop = (
        f"best: step {result['best_step']}, {result['best_metric']:.4f}",
        f"stop: step {result['stop_step']}",
    )
    loss, accuracy = panels([finished], tmp_path / "a.png")
    assert set(drawn(loss)) == {"train", "validation", best, stop}
    assert [epoch for epoch, _ in drawn(loss)["validation"]] == [5 / 8, 10 / 8, 15 / 8, 20 / 8]
    assert drawn(loss)[best] in [[point] for point in drawn(loss)["validation"]]
    assert len(drawn(accuracy)["train"]) == 24 // 3


def test_several_runs_are_labelled_by_name(finished, tmp_path):
    loss, _ = panels([finished, finished], tmp_path / "a.png")
    assert {"run train", "run validation"} <= set(drawn(loss))


def test_a_folder_without_a_run_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match="must be a run directory"):
        plot_history.plot([tmp_path], tmp_path / "a.png")
