"""The walls of the house, read from the source: who may import whom, and who alone may touch what."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "trainer"
ROOMS = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
WINGS = ("data", "model", "run")
BASE = {"trainer.files", "trainer.machine", "trainer.streams"}  # what everything may import
SHARED_PROGRAMS = {"trainer.evaluate", "trainer.progress", "trainer.start", "trainer.trained", "trainer.warm_start"}


def imports(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_imported(path):
    named = imports(path)
    return {room for room in ROOMS if any(name == room or name.startswith(f"{room}.") for name in named)}


def wing_of(room):
    parts = room.split(".")
    return parts[1] if len(parts) > 2 and parts[1] in WINGS else None


@pytest.mark.parametrize("room", [room for room in ROOMS if wing_of(room)])
def test_a_wing_imports_nothing_of_another_wing_or_of_a_program(room):
    assert {other for other in rooms_imported(ROOMS[room]) if wing_of(other) != wing_of(room)} <= BASE


PROGRAMS = [room for room in ROOMS if not wing_of(room) and room not in {"trainer.main", "trainer.config", "trainer.__init__"} | BASE]


@pytest.mark.parametrize("room", PROGRAMS)
def test_a_program_imports_no_program_but_the_shared_ones(room):
    programs = {other for other in rooms_imported(ROOMS[room]) if other in PROGRAMS}
    assert programs <= SHARED_PROGRAMS - {room}


def test_only_the_front_door_and_the_programs_know_the_config():
    for room, path in ROOMS.items():
        if wing_of(room) or room == "trainer.__init__":
            assert "trainer.config" not in rooms_imported(path), room


GATEKEEPERS = {
    "absl.flags": {"trainer.config"},
    "tensorflow_datasets": {"trainer.data.datasets", "trainer.data.own_reviews", "trainer.data.sample_reviews"},
    "tf.train.Checkpoint": {"trainer.run.checkpoint"},
    "tf.train.CheckpointManager": {"trainer.run.checkpoint"},
    "tf.summary": {"trainer.run.summaries"},
    "tf.profiler": {"trainer.run.summaries"},
    "tf.distribute": {"trainer.run.distribution"},
    "tf.saved_model": {"trainer.export"},
}


def names_used(path):
    """Dotted names in code, such as tf.train.Checkpoint, with what is imported."""
    tree = ast.parse(path.read_text())
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | imports(path)


@pytest.mark.parametrize("thing", GATEKEEPERS)
def test_each_outside_thing_has_one_gatekeeper(thing):
    users = {room for room, path in ROOMS.items() if any(name == thing or name.startswith(f"{thing}.") for name in names_used(path))}
    assert users <= GATEKEEPERS[thing]


# What other systems than Linux lack, or have another call for.
OF_LINUX = {
    *("os.sched_getaffinity", "os.sched_setaffinity", "os.cpu_count", "os.posix_fadvise"),
    *("os.posix_fallocate", "os.O_PATH", "os.O_TMPFILE", "os.memfd_create"),
    *("os.fsync", "os.fdatasync", "os.sync", "fcntl.F_FULLFSYNC"),
}


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "trainer.machine"])
def test_what_linux_alone_has_is_used_in_one_module(room):
    nodes = [node for node in ast.walk(ast.parse(ROOMS[room].read_text())) if isinstance(node, ast.Constant)]
    texts = [node.value for node in nodes if isinstance(node.value, str)]
    assert [text for text in texts if re.match("/(proc|sys|dev/(fd|shm))(/|$)", text)] == []
    assert names_used(ROOMS[room]).isdisjoint(OF_LINUX)


def test_nothing_of_keras_own_training_is_used():
    forbidden = {"fit", "compile", "callbacks", "train_on_batch"}
    for room, path in ROOMS.items():
        used = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        # An exported model is compiled for whoever goes on with stock Keras.
        assert used.isdisjoint(forbidden - {"compile"} if room == "trainer.export" else forbidden), room


def test_nothing_on_disk_is_ever_run_as_code():
    for room, path in ROOMS.items():
        tree = ast.parse(path.read_text())
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert called.isdisjoint({"eval", "exec", "compile", "__import__", "importlib.import_module"}), room
        assert imports(path).isdisjoint({"pickle", "marshal", "shelve", "dill", "runpy"}), room
        assert "allow_pickle=True" not in path.read_text(), room


def test_the_front_door_is_short():
    tree = ast.parse(ROOMS["trainer.main"].read_text())
    (main,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert main.end_lineno - main.body[0].end_lineno <= 20


def test_train_and_evaluate_can_be_read_on_one_screen():
    tree = ast.parse(ROOMS["trainer.train"].read_text())
    (loop,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "train_and_evaluate")
    assert loop.end_lineno - loop.body[0].end_lineno <= 60


@pytest.mark.parametrize("modules", ["trainer.main", "trainer.config", "trainer.run.workdir"])
def test_flags_and_lock_need_no_tensorflow(modules):
    code = f"import sys, {modules}; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=False).returncode == 0


def test_each_room_has_its_test():
    tests = {path.stem.removesuffix("_test") for path in pathlib.Path(__file__).parent.glob("*_test.py")}
    rooms = {room.split(".")[-1] for room in ROOMS} - {"__init__"}
    assert rooms - tests == set()
