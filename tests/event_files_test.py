"""The event log stays continuous across kills: reading, rewinding and removing it."""

import errno
import struct

import pytest
import tensorflow as tf
from compare_runs import scalars
from saved_runs import write_steps
from tensorboard.backend.event_processing import event_accumulator

from trainer import files
from trainer.errors import StorageError
from trainer.run import event_files, summaries


def test_points_after_the_restored_step_are_dropped(tmp_path):
    write_steps(tmp_path, [1, 2, 3])
    assert event_files.rewind(tmp_path, step=2).last_step == 3
    assert {step for _, _, step in scalars(tmp_path)} == {1, 2}


def test_an_event_log_of_a_different_state_is_recognised_by_its_last_points(tmp_path):
    write_steps(tmp_path, [1, 2, 3])
    ends = event_files.rewind(tmp_path, step=2).ends
    assert ends["train", "loss"] == (2, 2.0)
    assert event_files.differences(ends, {("train", "loss"): (2, 2.0), ("best", "waited"): (0, None)}) == []
    wrong = {("train", "loss"): (2, 2.5), ("best", "waited"): (2, None)}
    assert event_files.differences(ends, wrong) == [
        "train/loss is 2 at step 2 instead of 2.5",
        "best/waited ends at step 0 instead of 2",
    ]
    assert event_files.differences(ends, {("train", "loss"): (1, None)}) == [
        "train/loss ends at step 2 instead of 1"
    ]


def test_a_symlinked_event_log_is_not_rewound_and_a_warning_is_logged(tmp_path, caplog):
    write_steps(tmp_path / "elsewhere", [1, 2, 3])
    (tmp_path / "summaries").symlink_to(tmp_path / "elsewhere")
    before = scalars(tmp_path / "elsewhere")
    assert event_files.rewind(tmp_path / "summaries", step=2).last_step == 3
    assert scalars(tmp_path / "elsewhere") == before
    assert "is a link and is left as it is: points after step 2 will appear twice." in caplog.text


def test_after_many_kills_each_step_has_one_value_and_a_rewind_leaves_one_file(tmp_path):
    write_steps(tmp_path, [1, 2, 3])
    for restored in (2, 3, 4):
        event_files.rewind(tmp_path, step=restored)
        assert len(list((tmp_path / "train").iterdir())) == 1
        write_steps(tmp_path, range(restored + 1, restored + 3), offset=0.25)
    points = scalars(tmp_path)
    assert all(len(values) == 1 for values in points.values())
    assert [points["train", "loss", step][0] for step in range(1, 7)] == [1.0, 2.0, 3.25, 4.25, 5.25, 6.25]


def test_tensorboards_own_reader_sees_each_step_once(tmp_path):
    write_steps(tmp_path, [1, 2, 3])
    event_files.rewind(tmp_path, step=2)
    write_steps(tmp_path, [3, 4])
    reader = event_accumulator.EventAccumulator(
        str(tmp_path / "train"), size_guidance={event_accumulator.TENSORS: 0}
    )
    reader.Reload()
    assert [event.step for event in reader.Tensors("loss")] == [1, 2, 3, 4]


def test_rewinding_to_step_0_drops_all_points(tmp_path):
    write_steps(tmp_path, [1, 2])
    event_files.rewind(tmp_path, step=0)
    assert scalars(tmp_path) == {}


def test_curves_are_read_without_the_text_summaries_between_them(tmp_path):
    summaries.Summaries(tmp_path).write_tables("train", step=0, tables={"samples": [{"text": "good"}]})
    write_steps(tmp_path, [1, 2], offset=0.1)
    curves = event_files.read(tmp_path)
    assert set(curves) == {("train", "loss"), ("train", "accuracy"), ("validation", "loss")}
    assert curves["train", "loss"] == [(1, 1.1), (2, 2.1)]


def test_rewinding_to_step_0_drops_the_points_of_step_0_which_are_written_again(tmp_path):
    log = summaries.Summaries(tmp_path)
    log.write_tables("train", step=0, tables={"samples": [{"text": "good"}]})
    log.write("train", step=1, scalars={"loss": 1.0})
    log.commit()
    event_files.rewind(tmp_path, step=1)
    assert len(scalars(tmp_path)) == 2
    event_files.rewind(tmp_path, step=0)
    assert scalars(tmp_path) == {}


def test_an_incomplete_last_record_is_dropped(tmp_path):
    write_steps(tmp_path, [1, 2])
    (file,) = (tmp_path / "train").iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    event_files.rewind(tmp_path, step=2)
    assert [step for run, tag, step in scalars(tmp_path) if (run, tag) == ("train", "loss")] == [1, 2]
    assert ("train", "accuracy", 2) not in scalars(tmp_path)


def test_a_rewind_killed_before_removing_the_old_file_duplicates_no_points(tmp_path):
    write_steps(tmp_path, [1, 2])
    (file,) = (tmp_path / "train").iterdir()
    content = file.read_bytes()
    event_files.rewind(tmp_path, step=2)
    file.write_bytes(content)
    event_files.rewind(tmp_path, step=2)
    assert all(len(values) == 1 for values in scalars(tmp_path).values())


@pytest.mark.parametrize("has_others", [False, True])
def test_a_run_is_removed_with_its_folder_unless_it_holds_other_files(tmp_path, has_others):
    write_steps(tmp_path, [1])
    if has_others:
        (tmp_path / "train" / "notes").write_text("precious")
    event_files.remove_run(tmp_path / "train")
    assert {run for run, _, _ in scalars(tmp_path)} == {"validation"}
    assert (tmp_path / "train").exists() == has_others
    assert event_files.has_points(tmp_path)
    event_files.remove_run(tmp_path / "validation")
    assert not event_files.has_points(tmp_path)


def test_an_unreadable_run_leaves_the_other_runs_unchanged(tmp_path, monkeypatch):
    write_steps(tmp_path, [1, 2, 3])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    open_regular = files.open_regular

    def without_validation(path, *args, **kwargs):
        if path.parent.name == "validation":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_regular(path, *args, **kwargs)

    monkeypatch.setattr(files, "open_regular", without_validation)
    with pytest.raises(StorageError, match=r"validation.*could not be read \(Permission denied\)"):
        event_files.rewind(tmp_path, step=2)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("cut", range(1, 30))
def test_of_a_torn_event_file_every_complete_record_is_read(tmp_path, cut):
    write_steps(tmp_path, range(1, 8))
    (path,) = event_files.event_files(tmp_path / "train")
    content = path.read_bytes()
    path.write_bytes(content[: -7 * cut])
    records = [record for _, record in event_files._events([path])]
    assert records == list(complete_records(content[: -7 * cut]))


def complete_records(content):
    """The records with values, by the format: length, its CRC, record, CRC."""
    at = 0
    while at + 12 <= len(content):
        (size,) = struct.unpack_from("<Q", content, at)
        record, at = content[at + 12 : at + 12 + size], at + 16 + size
        if at <= len(content) and tf.compat.v1.Event.FromString(record).summary.value:
            yield record
