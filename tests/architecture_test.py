"""The import rules, checked in the source: which module may import which, and who owns each external API."""

import ast
import functools
import pathlib
import re
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "trainer"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}
PACKAGES = ("data", "model", "run")
# Modules that any module may import.
BASE = {
    f"trainer.{name}"
    for name in (
        "errors",
        "files",
        "streams",
        "words",
        "labels",
        "classes",
        "metrics",
        "machine",
        "parallel",
        "function_names",
        "in_place",
    )
}
ENTRY = {"trainer.main"}
MODES = {f"trainer.{name}" for name in ("train", "evaluate", "predict", "export", "inspect_run")}
LONGEST_MODULE, LONGEST_FUNCTION = 300, 40
LONGER_FUNCTIONS = {
    ("trainer.train", "train_and_evaluate"): 60,  # the training loop: order matters, so it is in one place
    ("trainer.model.lstm", "_run_segments"): 60,  # both passes, which share their tensors
    ("trainer.model.lstm", "run"): 45,
}


@functools.cache
def imports(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules_imported(path):
    named = imports(path)
    return {
        module for module in MODULES if any(name == module or name.startswith(f"{module}.") for name in named)
    }


def package_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 2 and parts[1] in PACKAGES else None


@pytest.mark.parametrize("module", [module for module in MODULES if package_of(module)])
def test_a_package_imports_only_itself_and_base_modules(module):
    others = {other for other in modules_imported(MODULES[module]) if package_of(other) != package_of(module)}
    assert others <= BASE


@pytest.mark.parametrize("module", sorted(BASE & MODULES.keys()))
def test_base_modules_import_only_base_modules(module):
    assert modules_imported(MODULES[module]) <= BASE


@pytest.mark.parametrize("module", sorted(MODULES.keys() - ENTRY))
def test_no_module_imports_a_mode_or_the_entry_point(module):
    assert modules_imported(MODULES[module]).isdisjoint(MODES | ENTRY)


def test_imports_are_acyclic():
    imported = {module: modules_imported(path) - {module} for module, path in MODULES.items()}
    while leaves := {module for module, others in imported.items() if not others & imported.keys()}:
        imported = {module: others for module, others in imported.items() if module not in leaves}
    assert imported == {}


def test_packages_and_base_modules_do_not_import_the_config():
    for module, path in MODULES.items():
        if package_of(module) or module in BASE:
            assert "trainer.config" not in modules_imported(path), module


API_OWNERS = {
    "absl.flags": {"trainer.flags"},
    "tensorflow_datasets": {
        "trainer.data.splits",
        "trainer.data.tfds_corpus",
        "trainer.data.tfds_builder",
        "trainer.data.tfds_features",
        "trainer.data.sample_reviews",
    },
    "tf.train.Checkpoint": {"trainer.run.checkpoint_manager", "trainer.run.checkpoint_reading"},
    "tf.train.CheckpointManager": {"trainer.run.checkpoint_manager"},
    "tf.summary": {"trainer.run.summaries"},
    "tf.profiler": {"trainer.run.summaries"},
    "tf.distribute": {"trainer.run.distribution"},
    "tf.saved_model": {"trainer.export"},
    "tf.raw_ops.RandomIndexShuffle": {"trainer.data.permutation"},
}


@functools.cache
def names_used(path):
    """Dotted names in code, such as tf.train.Checkpoint, with what is imported."""
    tree = ast.parse(path.read_text())
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | imports(path)


@pytest.mark.parametrize("api", API_OWNERS)
def test_each_external_api_is_used_only_by_its_owners(api):
    users = {
        module
        for module, path in MODULES.items()
        if any(name == api or name.startswith(f"{api}.") for name in names_used(path))
    }
    assert users <= API_OWNERS[api]


# Missing on systems other than Linux, or replaced by another call there.
PLATFORM_SPECIFIC = {
    *("os.sched_getaffinity", "os.sched_setaffinity", "os.cpu_count", "os.posix_fadvise"),
    *("os.posix_fallocate", "os.O_PATH", "os.O_TMPFILE", "os.memfd_create"),
    *("os.fsync", "os.fdatasync", "os.sync", "fcntl.F_FULLFSYNC"),
}


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"trainer.machine"}))
def test_platform_specific_apis_are_used_only_in_trainer_machine(module):
    constants = [
        node for node in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(node, ast.Constant)
    ]
    texts = [node.value for node in constants if isinstance(node.value, str)]
    assert [text for text in texts if re.match("/(proc|sys|dev/(fd|shm))(/|$)", text)] == []
    assert names_used(MODULES[module]).isdisjoint(PLATFORM_SPECIFIC)


def test_keras_training_methods_are_not_used():
    forbidden = {"fit", "compile", "callbacks", "train_on_batch"}
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text())
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used -= {"compile"} if "re" in imports(path) else set()  # re.compile
        # An exported model is compiled, so that stock Keras can continue its training.
        allowed = {"compile"} if module == "trainer.export" else set()
        assert used.isdisjoint(forbidden - allowed), module


def test_files_on_disk_are_never_executed_as_code():
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text())
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        forbidden = {"eval", "exec", "compile", "__import__", "importlib.import_module"}
        # The entry point imports the chosen mode from a fixed table.
        allowed = {"importlib.import_module"} if module == "trainer.main" else set()
        assert called.isdisjoint(forbidden - allowed), module
        assert imports(path).isdisjoint({"pickle", "marshal", "shelve", "dill", "runpy"}), module
        assert "allow_pickle=True" not in path.read_text(), module


@pytest.mark.parametrize("module", sorted(MODULES))
def test_modules_have_at_most_300_lines(module):
    assert len(MODULES[module].read_text().splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("module", MODULES)
def test_functions_fit_on_a_screen(module):
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.FunctionDef):
            limit = LONGER_FUNCTIONS.get((module, node.name), LONGEST_FUNCTION)
            has_docstring = ast.get_docstring(node) is not None
            first = node.body[1 if has_docstring and len(node.body) > 1 else 0]
            lines = (node.end_lineno or 0) - first.lineno + 1
            assert lines <= limit, node.name


@pytest.mark.parametrize(
    "modules", ["trainer.main", "trainer.flags", "trainer.config", "trainer.run.workdir"]
)
def test_flags_and_lock_do_not_import_tensorflow(modules):
    code = f"import sys, {modules}; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=False).returncode == 0


def test_each_module_has_a_test_file():
    tests = {path.stem.removesuffix("_test") for path in pathlib.Path(__file__).parent.glob("*_test.py")}
    assert {module.split(".")[-1] for module in MODULES} - tests == set()
