"""The environment in which TensorFlow is imported; `main_test` has the user's keras.json."""

import gc
import os
import subprocess
import sys

import matplotlib
import pytest
from compare_runs import differences, outcome
from fakes import command, tiny
from processes import run

from trainer.tensorflow_setup import COMPILED, importing_tensorflow

OURS = f"--tf_xla_persistent_cache_directory={COMPILED} --tf_xla_persistent_cache_device_types=CPU"


@pytest.mark.parametrize(
    ("given", "imported_with"),
    [
        (None, OURS),
        ("", OURS),
        ("--tf_xla_auto_jit=2 ", f"--tf_xla_auto_jit=2 {OURS}"),
        ("--tf_xla_persistent_cache_directory=/mine", "--tf_xla_persistent_cache_directory=/mine"),
        ("/a/file/of.flags", "/a/file/of.flags"),
        (OURS, OURS),
    ],
)
def test_xlas_flags_of_the_user_stay_and_what_is_compiled_goes_to_memory(monkeypatch, given, imported_with):
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    for name in [name for name in os.environ if name.startswith("KERAS_")]:
        monkeypatch.setenv(name, os.environ[name])
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
    if given is not None:
        monkeypatch.setenv("TF_XLA_FLAGS", given)
    with importing_tensorflow():
        assert os.environ["TF_XLA_FLAGS"] == imported_with


def test_no_garbage_is_looked_for_during_the_import_but_afterwards_it_is():
    before = sys.dont_write_bytecode
    with pytest.raises(ImportError), importing_tensorflow():
        assert not gc.isenabled()
        raise ImportError
    sys.dont_write_bytecode = before
    assert gc.isenabled() and gc.get_freeze_count() > 100_000


@pytest.mark.slow
def test_keras_does_not_import_matplotlib_and_others_can_do_so_later():
    program = """if True:
        import sys
        assert "keras" in sys.modules
        assert not [name for name in sys.modules if name.startswith("matplotlib")]
        import matplotlib.pyplot
    """
    run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_matplotlib_that_was_imported_before_stays():
    before = sys.dont_write_bytecode
    with importing_tensorflow():
        assert sys.modules["matplotlib"] is matplotlib
    sys.dont_write_bytecode = before
    assert sys.modules["matplotlib"] is matplotlib


def test_keras_settings_decide_nothing_and_nothing_is_left_in_the_home_and_among_temporary_files(
    tmp_path, cache_dir, one_epoch
):
    home, keras_home, temporary = tmp_path / "home", tmp_path / "keras", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    keras_home.mkdir()
    (keras_home / "keras.json").write_text("[]")
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("KERAS_", "PYTHONDONT"))
    }
    environment = inherited | {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "KERAS_BACKEND": "torch",
        "KERAS_NNX_ENABLED": "1",
        "KERAS_MAX_EPOCHS": "few",
        "KERAS_HOME": str(keras_home),
        "MPLCONFIGDIR": matplotlib.get_cachedir(),  # else it collects the fonts of the machine again
    }
    completed = subprocess.run(
        command(tiny(tmp_path / "run", cache_dir, epochs=1)),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert completed.returncode == 0, completed.stderr
    assert differences(outcome(one_epoch), outcome(tmp_path / "run")) == []
    assert [path.name for path in keras_home.iterdir()] == ["keras.json"]
    assert not (home / ".keras").exists()
    assert list(temporary.rglob("*")) == []
