"""Writing results to --output."""

import json

from trainer import output


def test_a_result_goes_to_a_file_or_to_standard_output(tmp_path, capsys):
    output.write_json("", {"a": 1})
    assert capsys.readouterr().out == ""
    output.write_json("-", {"a": 1})
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    output.write_json(str(tmp_path / "result.json"), {"a": 1})
    assert json.loads((tmp_path / "result.json").read_text()) == {"a": 1}
