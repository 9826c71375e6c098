"""Runs do not affect each other, and files in a run directory are not trusted."""

import contextlib
import errno
import hashlib
import os
import pathlib
import shutil
import signal
import string
import subprocess
import sys

import pytest
import tensorflow as tf
from compare_runs import outcome
from fakes import NoStopRequests, command, make_state, set_step, tiny
from processes import run as run_forked
from reference_runs import SELDOM, assert_resumes_like, train_to_the_end, train_until_killed

from trainer import config, evaluate, export, files, flagfile, inspect_run, main, predict, train
from trainer.errors import InputError, StorageError
from trainer.run import (
    checkpoint_cleanup,
    checkpoint_files,
    checkpoint_reading,
    event_files,
    summaries,
    workdir,
)
from trainer.run.checkpoint_manager import Checkpoints

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


class Killed(BaseException):
    """Simulates SIGKILL within the process."""


def train_until(given, monkeypatch, step, then):
    """Trains, and calls `then` once the checkpoint of `step` is committed."""
    save = Checkpoints.save

    def save_and_act(checkpoints):
        save(checkpoints)
        if int(checkpoints._state.step) == step:
            then()

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_act)
        train.run(given, stop_requests=NoStopRequests())


def kill():
    raise Killed


def tree(folder):
    """Every path below a folder, with its content, inode, mode and modification time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if files.is_regular(path) else None
        found[str(path.relative_to(folder))] = (content, status.st_ino, status.st_mode, status.st_mtime_ns)
    return found


def rewrite(prefix, **strings):
    """Rewrites a checkpoint with some of its strings replaced."""
    with files.plain_name(prefix) as name:
        reader = tf.train.load_checkpoint(name)
        values = {key: tf.constant(reader.get_tensor(key)) for key in reader.get_variable_to_shape_map()}
        for key, text in strings.items():
            values[f"{key}/.ATTRIBUTES/VARIABLE_VALUE"] = tf.constant(text)
        tf.raw_ops.SaveV2(
            prefix=name,
            tensor_names=list(values),
            shape_and_slices=[""] * len(values),
            tensors=list(values.values()),
        )


def newest(run):
    return checkpoint_files.find(run).newest


# Run names.

NAMES = [
    *(f"a{chars}b" for chars in (string.digits, string.ascii_lowercase, string.ascii_uppercase)),
    # A shell, a pattern or a format may take each.
    *(pytest.param(f"a{char}b", marks=pytest.mark.slow) for char in " \"#$%'*-.:?[\\]{}~"),
    "a!&()+,;<=>@^_`|b",
    *(
        "sib*",
        "s?b1",
        "[s]ib1",
        "sib[!x]",
        "imdb [final]",
        r"back\slash",
        "**",
        "{a,b}",
        "%s%n",
        "-rf",
        "~",
        "$HOME",
        "#",
        " ",
        "'",
        '"',
    ),
    *("é", "日本", "e\u0301", "\u202eabc", "😀", "checkpoint", "ckpt-5.index", "gs:", "a:b", "..."),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_any_name_changes_files_only_in_its_own_directory(tmp_path, name):
    run, siblings = tmp_path / name, tmp_path / "siblings"
    siblings.mkdir()
    for other in ("sib1", "sib2", "imdb f", "backslash", "a1b", "ab", "aab"):
        if other != name:
            (tmp_path / other / "checkpoints").mkdir(parents=True)
            for number in range(1, 6):
                (tmp_path / other / "checkpoints" / f"ckpt-{number}.index").write_bytes(b"precious")
                (tmp_path / other / "checkpoints" / f"ckpt-{number}.data-00000-of-00001").write_bytes(
                    b"precious"
                )
    run.mkdir(exist_ok=True)

    def others():
        return {path: state for path, state in tree(tmp_path).items() if not path.startswith(name)}

    before = others()
    for steps in ((1, 2), (3,)):
        found = checkpoint_files.find(run)
        assert (found.newest is None) == (steps[0] == 1)
        checkpoint_cleanup.tidy(run, found)
        state = make_state()
        checkpoints = Checkpoints(run=run, state=state, max_to_keep=1)
        if found.newest:
            checkpoints.restore(found.newest)
            checkpoints.prune()
        event_files.rewind(run / "summaries", step=int(state.step))
        events = summaries.Summaries(run / "summaries")
        for step in steps:
            set_step(state, step)
            state.best_step.assign(step)
            events.write("train", step=step, scalars={"loss": 1.0})
            events.commit()
            checkpoints.save()
        checkpoints.save_best()
    assert [prefix.name for prefix in checkpoint_files.prefixes(run / "checkpoints")] == ["ckpt-3"]
    (run / "checkpoints" / "ckpt-3.index").write_bytes(b"")
    found = checkpoint_files.find(run)
    assert found.newest == run / "best" / "ckpt-3"
    checkpoint_cleanup.tidy(run, found)
    assert (run / "quarantine" / "checkpoints" / "ckpt-3.index").exists()
    assert [step for step, _ in event_files.read(run / "summaries")["train", "loss"]] == [1, 2, 3]
    assert others() == before


@pytest.mark.parametrize("name", ["sib*", "imdb [final]", "back\\slash $(x) 'é"])
def test_a_run_of_any_name_can_be_killed_resumed_and_read(
    tmp_path, finished, cache_dir, one_epoch, monkeypatch, name
):
    sibling = shutil.copytree(finished, tmp_path / "sib1")
    before, run = tree(sibling), tmp_path / name
    given = tiny(run, cache_dir, epochs=1)
    with pytest.raises(Killed):
        train_until({**given, **SELDOM, "checkpoint_every_steps": 6}, monkeypatch, 6, kill)
    (run / "checkpoints" / "ckpt-6.index").write_bytes(b"")
    train.run(given, stop_requests=NoStopRequests())
    assert outcome(run) == outcome(one_epoch)
    short = {"workdir": str(run), "cache_dir": cache_dir}
    evaluate.run({**short, "mode": "evaluate", "output": str(run / "report [1].json")})
    predict.run({**short, "mode": "predict", "text": ("fine",)})
    inspect_run.run({**short, "mode": "inspect"})
    assert tree(sibling) == before


def test_a_run_of_any_name_can_be_exported(tmp_path, one_epoch, cache_dir, monkeypatch):
    # Keras takes seconds for a text of 250 tokens.
    monkeypatch.setattr(export, "_PROBES", export._PROBES[:2])
    run = shutil.copytree(one_epoch, tmp_path / r"sib* [final] back\slash $(x) 'é")
    # As a pattern, the name of the run would match these.
    names = "sib1 f backslash $(x) 'é", r"sib1 f back\slash $(x) 'é"
    siblings = [shutil.copytree(one_epoch, tmp_path / name) for name in names]
    before = [tree(sibling) for sibling in siblings]
    export.run({"workdir": str(run), "cache_dir": cache_dir, "mode": "export"})
    assert (run / "export" / "model.keras").exists()
    assert [tree(sibling) for sibling in siblings] == before


# A run directory is untrusted data.


@pytest.mark.parametrize(
    "flag", ["output", "text", "cache_dir", "mode", "workdir", "data_dir", "init_from", "input", "checkpoint"]
)
def test_a_command_line_only_flag_is_not_taken_from_a_run_directory(copy, cache_dir, tmp_path, flag, capsys):
    target = tmp_path / "precious"
    target.write_text("precious")
    line = f"--{flag}={target}\n"
    text = (copy / "config.flags").read_text()
    lines = "".join(text.splitlines(keepends=True)[:-1]) + line
    (copy / "config.flags").write_text(
        f"{lines}{flagfile._SEAL}{hashlib.sha256(lines.encode()).hexdigest()}\n"
    )
    given = {"workdir": str(copy), "cache_dir": cache_dir, "mode": "predict", "text": ("fine",)}
    predict.run(given)
    assert target.read_text() == "precious"
    assert "fine" in capsys.readouterr().out
    (best,) = (copy / "best").glob("*.index")
    rewrite(best.with_suffix(""), frozen_flags=lines)
    with pytest.raises(InputError, match=f"--{flag}=.* may only be given on the command line"):
        predict.run(given)
    assert target.read_text() == "precious"


def test_an_unknown_stored_flag_is_refused_by_name_in_every_mode(copy, cache_dir):
    last = copy / "checkpoints" / "ckpt-24"
    flags = checkpoint_reading.read_text(last, "frozen_flags") + "--weight_decay=0.0\n"
    for index in copy.glob("*/ckpt-*.index"):
        rewrite(index.with_suffix(""), frozen_flags=flags)
    short = {"workdir": str(copy), "cache_dir": cache_dir}
    with pytest.raises(InputError, match=r"no '--weight_decay=0\.0'; use the version"):
        train.run(short, stop_requests=NoStopRequests())
    for mode, program in {
        "inspect": inspect_run,
        "predict": predict,
        "evaluate": evaluate,
        "export": export,
    }.items():
        with pytest.raises(InputError, match=r"--weight_decay=0\.0"):
            program.run({**short, "mode": mode})
    assert config.FIELDS.keys().isdisjoint({"weight_decay"})


@pytest.mark.parametrize("how", ["edited", "removed", "garbage"])
def test_settings_come_from_the_checkpoint_and_not_from_config_flags(
    copy, cache_dir, reference_outcome, caplog, how
):
    path = copy / "config.flags"
    content = path.read_text()
    if how == "removed":
        path.unlink()
    else:
        path.write_text(content.replace("--epochs=3", "--epochs=30") if how == "edited" else "garbage")
    train.run({"workdir": str(copy), "cache_dir": cache_dir}, stop_requests=NoStopRequests())
    assert "is finished" in caplog.text
    assert "does not have the run's settings" in caplog.text
    assert outcome(copy) == reference_outcome


@pytest.mark.parametrize(
    "damage",
    [
        {"fingerprints": "[]"},
        {"fingerprints": "{"},
        {"conditions": "[" * 10**5},
        {"frozen_flags": "\x00"},
        {"free_flags": "--epochs=0\n"},
        {"frozen_flags": "--lstm_units=30000\n"},
    ],
)
def test_a_checkpoint_with_invalid_strings_raises_only_user_errors(copy, cache_dir, damage):
    for index in copy.glob("*/ckpt-*.index"):
        rewrite(index.with_suffix(""), **damage)
    for program, mode in ((train, "train"), (predict, "predict"), (inspect_run, "inspect")):
        with contextlib.suppress(InputError):
            given = {
                "workdir": str(copy),
                "cache_dir": cache_dir,
                "mode": mode,
                "epochs": 4,
                "text": ("fine",),
            }
            run_mode(program, given)


@pytest.mark.parametrize("name", ["step", "best_step", "best_metric", "waited", "improved"])
def test_a_checkpoint_with_strings_in_place_of_numbers_raises_only_user_errors(copy, cache_dir, name):
    for index in copy.glob("*/ckpt-*.index"):
        rewrite(index.with_suffix(""), **{name: "text"})
    for program, mode in ((train, "train"), (predict, "predict"), (inspect_run, "inspect")):
        given = {"workdir": str(copy), "cache_dir": cache_dir, "mode": mode, "text": ("fine",)}
        with contextlib.suppress(InputError, StorageError):
            run_mode(program, given)


LINES = [
    "[]",
    "{}",
    "null",
    "1",
    "[" * 10**5,
    '{"stores": [], "step": 0, "steps_recomputed_at_least": 0, "steps_per_epoch": 8}',
]
STARTS = [
    f'{{"stores": {{}}, "step": 0, "steps_recomputed_at_least": 0, "steps_per_epoch": {n}}}'
    for n in ("0", "-1", "Infinity", "NaN")
]


def test_inspect_skips_malformed_lines_of_starts_jsonl(copy, cache_dir, capsys):
    with (copy / "starts.jsonl").open("a") as file:
        file.writelines(f"{line}\n" for line in LINES + STARTS)
    inspect_run.run({"workdir": str(copy), "cache_dir": cache_dir, "mode": "inspect"})
    assert "starts      1," in capsys.readouterr().out


OWN_FILES = ["config.flags", "manifest.json", "starts.jsonl", "vocabulary.txt", "result.json", "lock"]
OWN_FILES += [
    ".config.flags.tmp",
    ".result.json.tmp",
    ".starts.jsonl.tmp",
    "checkpoints/checkpoint",
    "checkpoints/.checkpoint.tmp",
]
OWN_FILES += [
    "checkpoints/ckpt-14.index",
    "checkpoints/ckpt-14.data-00000-of-00001",
    "checkpoints/ckpt-15.index",
    "checkpoints/ckpt-15_temp",
]
OWN_FILES += ["summaries/test", "summaries/train/.x.tmp", "quarantine", "export"]


def run_mode(module, given):
    requests = {"stop_requests": NoStopRequests()} if module is train else {}
    module.run(given, **requests)


class Hung(BaseException):
    """The program has not ended in time."""


@pytest.fixture
def run_main(monkeypatch, caplog):
    """Runs the program with given settings in this process, without signals; returns the exit code."""

    def give_up(signum, frame):
        raise Hung

    class Ignored(NoStopRequests):
        def __enter__(self):
            return self

        def __exit__(self, *why):
            pass

    def start(given):
        with monkeypatch.context() as patch:
            patch.setattr(main, "Signals", Ignored)
            patch.setattr(main.streams, "guard", lambda: None)
            before = signal.signal(signal.SIGALRM, give_up)
            signal.alarm(120)
            try:
                return main.main(command(given)[2:])
            finally:
                signal.alarm(0)
                signal.signal(signal.SIGALRM, before)

    return start


@pytest.mark.parametrize(
    ("name", "kind"), [(name, ("link", "pipe")[at % 2]) for at, name in enumerate(OWN_FILES)]
)
def test_a_symlink_or_pipe_in_place_of_a_file_is_neither_followed_nor_waited_for(
    tmp_path, killed, cache_dir, run_main, caplog, name, kind
):
    run, precious = shutil.copytree(killed / "14", tmp_path / "run"), tmp_path / "precious"
    precious.write_text("precious")
    path = run / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(precious)
    else:
        os.mkfifo(path)
    code = run_main(tiny(run, cache_dir, epochs=2))
    assert code in (0, 2, 3)
    assert [record.levelname for record in caplog.records].count("ERROR") == (code > 0)
    assert precious.read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lock", "pipe"),
        ("config.flags", "pipe"),
        ("checkpoints/ckpt-24.index", "pipe"),
        ("result.json", "link"),
    ],
)
def test_a_symlink_or_pipe_does_not_block_a_real_process(tmp_path, copy, cache_dir, name, kind):
    run, precious = copy, tmp_path / "precious"
    precious.write_text("precious")
    (run / name).unlink(missing_ok=True)
    if kind == "link":
        (run / name).symlink_to(precious)
    else:
        os.mkfifo(run / name)
    completed = run_forked(
        command(tiny(run, cache_dir)), capture_output=True, text=True, check=False, timeout=120
    )
    assert completed.returncode in (0, 2, 3)
    assert "Traceback" not in completed.stderr
    assert completed.returncode == 0 or completed.stderr.count("error: ") == 1
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("name", ["checkpoints", "best", "summaries", "summaries/train", "quarantine"])
def test_a_users_symlinked_folder_is_written_to_and_never_cleaned_up(tmp_path, finished, cache_dir, name):
    other, run = (shutil.copytree(finished, tmp_path / name) for name in ("other", "run"))
    (other / name).mkdir(exist_ok=True)
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(other / name)
    before = tree(other)
    train.run(tiny(run, cache_dir, epochs=4, patience=0, max_to_keep=1), stop_requests=NoStopRequests())
    after = tree(other)
    ignored = {
        path for path in before if path.endswith("/checkpoint") or before[path][0] is None
    }  # TensorFlow's state file, and folders
    assert {path: after.get(path) for path in before if path not in ignored} == {
        path: before[path] for path in before if path not in ignored
    }


def test_a_run_with_a_symlinked_checkpoints_folder_trains_and_resumes(
    tmp_path, cache_dir, seldom_saved_outcome, monkeypatch
):
    run, big = tmp_path / "run", tmp_path / "big disk"
    (run).mkdir()
    big.mkdir()
    (run / "checkpoints").symlink_to(big)
    with pytest.raises(Killed):
        train_until(tiny(run, cache_dir), monkeypatch, 10, kill)
    saved = sorted(path.name for path in big.glob("*.index"))
    train_to_the_end(tiny(run, cache_dir))
    assert outcome(run) == seldom_saved_outcome
    assert saved == ["ckpt-10.index", "ckpt-8.index", "ckpt-9.index"]
    assert set(saved) <= {path.name for path in big.iterdir()}


# An unreadable file is not a damaged one.


@AS_ROOT
@pytest.mark.parametrize(
    "name", ["checkpoints/ckpt-10.index", "checkpoints/ckpt-10.data-00000-of-00001", "checkpoints", "best"]
)
def test_a_file_without_read_permission_is_an_error_and_nothing_is_moved(tmp_path, halfway, cache_dir, name):
    run = shutil.copytree(halfway, tmp_path / "run")
    mode = (run / name).stat().st_mode
    (run / name).chmod(0)
    before = {path for path in run.rglob("*")}
    for folder in (*run.parents, run):
        with contextlib.suppress(OSError):
            folder.chmod(folder.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        with pytest.raises(StorageError, match=r"could not be read \(.*[Pp]ermission denied"):
            checkpoint_files.find(run)
    finally:
        os.seteuid(0)
    (run / name).chmod(mode)
    assert {path for path in run.rglob("*")} == before


def test_disk_errors_are_not_mistaken_for_damage(halfway, monkeypatch):
    healthy, load, failures = newest(halfway), tf.train.load_checkpoint, []

    def fail_once(name):
        if not failures:
            failures.append(name)
            raise tf.errors.UnknownError(None, None, "Input/output error")
        return load(name)

    monkeypatch.setattr(tf.train, "load_checkpoint", fail_once)
    assert newest(halfway) == healthy
    assert failures
    monkeypatch.setattr(tf.train, "load_checkpoint", load)

    def fail(path, flags=os.O_RDONLY):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    def fail_always(name):
        raise tf.errors.UnknownError(None, None, "Input/output error")

    monkeypatch.setattr(tf.train, "load_checkpoint", fail_always)
    monkeypatch.setattr(files, "open_regular", fail)
    with pytest.raises(StorageError, match=r"could not be read \(Input/output error\); nothing was changed"):
        newest(halfway)


def test_a_disk_error_while_listing_checkpoints_is_a_storage_error(halfway, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(pathlib.Path, "iterdir", fail)
    with pytest.raises(StorageError, match=r"checkpoints could not be read \(Input/output error\)"):
        checkpoint_files.find(halfway)


# Only the directory that was opened is written to.


@pytest.mark.parametrize("instead", [None, "an empty folder", "another run"])
def test_a_run_moved_while_training_ends_and_creates_nothing_at_its_old_path(
    tmp_path, finished, cache_dir, reference, reference_outcome, monkeypatch, instead
):
    run, moved = tmp_path / "run", tmp_path / "moved"

    def move():
        run.rename(moved)
        if instead == "an empty folder":
            run.mkdir()
        elif instead:
            shutil.copytree(finished, run)

    with pytest.raises(StorageError, match=f"{run} must stay"):
        train_until(tiny(run, cache_dir), monkeypatch, 8, move)
    if instead == "another run":
        assert outcome(run) == reference_outcome
    else:
        assert not run.exists() or not list(run.iterdir())
    shutil.rmtree(run, ignore_errors=True)
    moved.rename(run)
    assert_resumes_like(reference, tiny(run, cache_dir), monkeypatch, from_step=8)


@pytest.mark.parametrize("how", ["older", "another run's", "none"])
def test_an_event_log_that_does_not_match_the_checkpoint_is_reported(
    tmp_path, halfway, finished, cache_dir, monkeypatch, caplog, how
):
    run = shutil.copytree(halfway, tmp_path / "run")
    if how == "another run's":
        other = tmp_path / "other"
        with pytest.raises(Killed):
            train_until(tiny(other, cache_dir, train_split="train[1:32]", **SELDOM), monkeypatch, 10, kill)
        shutil.rmtree(run / "summaries")
        shutil.copytree(other / "summaries", run / "summaries")
    else:
        event_files.rewind(run / "summaries", step=4 if how == "older" else 0)
    assert train_until_killed(tiny(run, cache_dir), monkeypatch, 11, committed=True)
    assert "is not the event log of this run up to step 10" in caplog.text


def test_an_event_log_that_matches_the_checkpoint_is_not_reported(
    tmp_path, halfway, cache_dir, monkeypatch, caplog
):
    run = shutil.copytree(halfway, tmp_path / "run")
    assert train_until_killed(tiny(run, cache_dir, log_every_steps=4), monkeypatch, 11, committed=True)
    assert "is not the event log" not in caplog.text


def test_a_new_run_on_a_full_disk_ends_with_exit_code_3(small_disk, cache_dir):
    folder = small_disk(0.02)
    with pytest.raises(OSError, match="No space"), (folder / "fill").open("wb") as file:
        for _ in range(100):
            file.write(bytes(1024))
            file.flush()
    completed = run_forked(
        command(tiny(folder / "run", cache_dir)), capture_output=True, text=True, check=False
    )
    assert completed.returncode == 3
    assert completed.stderr.count("error: ") == 1
    assert "No space left on device" in completed.stderr
    assert "Traceback" not in completed.stderr


@pytest.mark.skipif(
    not shutil.which("unshare") or os.geteuid() != 0,
    reason="needs root and unshare, for another PID namespace",
)
def test_inspect_detects_a_training_run_from_another_pid_namespace(tmp_path):
    program = "import sys, pathlib; from trainer.run import workdir as w"
    program += "; print(w.is_held(pathlib.Path(sys.argv[1])))"
    inside = [
        "unshare",
        "--pid",
        "--fork",
        "--mount-proc",
        sys.executable,
        "-c",
        program,
        str(tmp_path / "run"),
    ]
    if subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "true"], check=False, capture_output=True
    ).returncode:
        pytest.skip("no PID namespace can be made here")
    with workdir.hold(tmp_path / "run"):
        assert subprocess.run(inside, capture_output=True, text=True, check=True).stdout == "True\n"
    assert subprocess.run(inside, capture_output=True, text=True, check=True).stdout == "False\n"
