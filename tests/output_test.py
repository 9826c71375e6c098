"""Results where --output says."""

import json

from trainer import output


def test_an_answer_goes_where_output_says(tmp_path, capsys):
    output.write_json("", {"a": 1})
    assert capsys.readouterr().out == ""
    output.write_json("-", {"a": 1})
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    output.write_json(str(tmp_path / "answer.json"), {"a": 1})
    assert json.loads((tmp_path / "answer.json").read_text()) == {"a": 1}
