"""The environment in which TensorFlow is imported."""

import json
import os
import subprocess

import matplotlib
import pytest
from compare_runs import outcome
from fakes import command, tiny


def run(arguments, **kwargs):
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120, **kwargs)


@pytest.mark.parametrize(
    ("keras_json", "environment"),
    [
        ({"floatx": "float64", "epsilon": 0.1, "image_data_format": "channels_first", "backend": "jax"}, {}),
        (
            [],
            {
                "KERAS_BACKEND": "torch",
                "KERAS_NNX_ENABLED": "1",
                "KERAS_MAX_EPOCHS": "few",
                "KERAS_HOME": "{home}/.keras",
            },
        ),
    ],
)
def test_the_users_settings_of_keras_decide_nothing(
    tmp_path, cache_dir, reference_outcome, keras_json, environment
):
    home = tmp_path / "home"
    (home / ".keras").mkdir(parents=True)
    (home / ".keras" / "keras.json").write_text(json.dumps(keras_json))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KERAS_")}
    kept["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # else it collects the fonts of the machine again
    users = {name: value.format(home=home) for name, value in environment.items()}
    answer = run(command(tiny(tmp_path / "run", cache_dir)), env={**kept, "HOME": str(home), **users})
    assert answer.returncode == 0, answer.stderr
    assert outcome(tmp_path / "run") == reference_outcome
    assert [path.name for path in (home / ".keras").iterdir()] == ["keras.json"]
