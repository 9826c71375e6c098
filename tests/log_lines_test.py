"""Log records on standard error."""

import logging

import pytest

from trainer import log_lines
from trainer.log_lines import LogLines


def emit(monkeypatch, level, *, terminal=False, path=log_lines.__file__, environment=(), **extra):
    for name, value in {"NO_COLOR": "", "TERM": "xterm", **dict(environment)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(log_lines.sys.stderr, "isatty", lambda: terminal, raising=False)
    record = logging.LogRecord("absl", level, path, 1, "loss %d", (3,), None)
    vars(record).update(extra)
    LogLines().emit(record)


def test_an_info_message_of_ours_is_printed_unchanged(monkeypatch, capsys):
    emit(monkeypatch, logging.INFO)
    assert capsys.readouterr().err == "loss 3\n"


def test_a_warning_is_prefixed(monkeypatch, capsys):
    emit(monkeypatch, logging.WARNING, path="/elsewhere/library.py")
    assert capsys.readouterr().err == "warning: loss 3\n"


def test_library_messages_below_warning_are_not_shown(monkeypatch, capsys):
    emit(monkeypatch, logging.INFO, path="/elsewhere/library.py")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("level", "extra", "colour"),
    [(logging.INFO, {"is_good": True}, 32), (logging.WARNING, {}, 33), (logging.ERROR, {}, 31)],
)
def test_a_terminal_gets_colours(monkeypatch, capsys, level, extra, colour):
    emit(monkeypatch, level, terminal=True, **extra)
    assert capsys.readouterr().err.startswith(f"\x1b[{colour}m")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_turned_off(monkeypatch, capsys, environment):
    emit(monkeypatch, logging.ERROR, terminal=True, environment=environment.items())
    assert "\x1b" not in capsys.readouterr().err
