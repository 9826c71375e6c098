"""README and BUILD: commands parse, flags and defaults are the program's, named files and modules exist."""

import argparse
import ast
import os
import pathlib
import re
import shlex

import pytest
from absl import flags

from trainer import errors
from trainer import flags as command_line
from trainer.config import FIELDS, Config

ROOT = pathlib.Path(__file__).parent.parent
README, BUILD = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "BUILD.md"))
DOCUMENTS = {"README": README, "BUILD": BUILD}
MAX_LINES, MAX_COLUMNS = 220, 110
LIBRARY_FLAGS = {"flagfile", "verbosity", "help"}  # of absl and argparse
FOREIGN_FLAGS = {
    "README": {"logdir"},
    "BUILD": {"xla_cpu_prefer_vector_width", "xla_dump_to", "universal", "python"},
}
NAMES_IN_CHECKPOINTS = {"model/embedding"}  # looks like the path of a module

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")


def fenced(text, *languages):
    return [content for language, content in _FENCE.findall(text) if language in languages]


def prose(text):
    return _FENCE.sub("", text)


def commands(text):
    """The command lines of a document: after a prompt in console blocks, in sh blocks, in sentences."""
    console, shell = ("".join(fenced(text, language)).splitlines() for language in ("console", "sh"))
    lines = [line[2:] for line in console if line.startswith("$ ")]
    lines += [line.strip() for line in shell if line.strip()]
    starts = ("python ", "scripts/", "tensorboard ")
    lines += [code for code in _CODE.findall(prose(text)) if code.startswith(starts) and " " in code]
    return [words for line in dict.fromkeys(lines) if (words := shlex.split(line, comments=True))]


def parse(arguments):
    """The settings that the trainer parses from these arguments."""
    flags.FLAGS.unparse_flags()
    try:
        return command_line.parse(["trainer", *arguments])
    finally:
        flags.FLAGS.unparse_flags()


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    yield
    flags.FLAGS.unparse_flags()


def parser_of(script):
    """A script's parser, rebuilt from its source, because importing a script may take seconds."""
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    types = {"int": int, "float": float, "pathlib.Path": pathlib.Path}
    tree = ast.parse(pathlib.Path(script).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") != "add_argument":
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        literal = {name: given[name] for name in ("action", "nargs", "choices") if name in given}
        known = {name: ast.literal_eval(value) for name, value in literal.items()}
        if "type" in given:
            known["type"] = types[ast.unparse(given["type"])]
        parser.add_argument(*map(ast.literal_eval, node.args), **known)
    return parser


def check_command(words):
    """Raises if the program of a command does not exist or does not accept its flags."""
    if words[0] == "tensorboard":
        assert [word for word in words[1:] if word.startswith("--")] == ["--logdir"]
    elif words[0] == "scripts/train.sh" or words[:3] == ["python", "-m", "trainer.main"]:
        is_script = words[0] == "scripts/train.sh"
        arguments = words[1 if is_script else 3 :]
        given = parse(arguments or ["--flagfile=trainer/configs/quickstart.flags"])
        assert given is None or Config(**given).workdir
        assert not is_script or os.access(words[0], os.X_OK)
    elif words[0] == "scripts/test.sh":
        assert os.access(words[0], os.X_OK)
    else:
        assert words[0] == "python"
        assert words[1].startswith("scripts/")
        arguments = words[2 : words.index("--") if "--" in words else None]
        _, unknown = parser_of(words[1]).parse_known_args(arguments)
        assert not unknown


@pytest.mark.parametrize("words", commands(README), ids=" ".join)
def test_each_command_in_readme_is_accepted_by_its_program(words):
    check_command(words)


@pytest.mark.parametrize(
    "line",
    [
        "python -m trainer.main --workdir=w --epoch=3",
        "python -m trainer.main --workdir=w --epochs=many",
        "python -m trainer.main --workdir=w --mode=train --text=good",
        "python -m trainer.main --flagfile=trainer/configs/missing.flags",
        "python -m trainer.main --mode=inspect",
        "scripts/train.sh --workdir=w stray",
        "scripts/missing.sh",
        "python scripts/missing.py",
        "python scripts/kill_and_resume.py --kill=20",
        "python scripts/kill_and_resume.py --kills=many",
        "tensorboard --directory runs",
    ],
)
def test_a_command_that_would_fail_is_detected(line):
    with pytest.raises((AssertionError, errors.InputError, OSError, argparse.ArgumentError)):
        check_command(shlex.split(line))


def test_readme_shows_commands_of_each_kind():
    programs = {words[0] if words[0] != "python" else words[1] for words in commands(README)}
    assert programs >= {"scripts/train.sh", "-m", "scripts/kill_and_resume.py", "tensorboard"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_flag_named_in_a_document_is_in_help_or_in_a_script(document):
    code = " ".join(_CODE.findall(prose(DOCUMENTS[document])))
    named = set(re.findall(r"--(\w+)", code))
    shown = set(re.findall(r"--(\w+)", command_line.help_text())) | LIBRARY_FLAGS
    scripts = [path.read_text(encoding="utf-8") for path in (ROOT / "scripts").rglob("*.py")]
    shown |= set(re.findall(r'add_argument\(\s*"--(\w+)"', "".join(scripts)))
    assert named - shown == FOREIGN_FLAGS[document]


def rows(text, header):
    """The rows of the table below `header`, as lists of cells."""
    table = text.partition(f"{header}\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()[1:]]


def test_the_flag_defaults_in_readme_are_those_of_the_program():
    table = rows(README, "| flag | default | |")
    assert len(table) > 5
    for names, defaults, *_ in table:
        names = re.findall(r"--(\w+)", names)
        defaults = [default.strip(" `") for default in defaults.split(",")]
        assert len(names) == len(defaults)
        for name, default in zip(names, defaults, strict=True):
            given = parse([f"--{name}={default}"])[name]
            assert given == FIELDS[name].default, f"--{name}"


def test_the_exit_codes_in_readme_are_those_of_the_errors():
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    codes = {error.exit_code for error in classes if "exit_code" in vars(error)}
    text = README.partition("Exit codes:")[2].partition("\n\n")[0]
    assert codes == {2, 3, 4, 5}
    assert {int(code) for code in re.findall(r"(?:^|; )\s*(\d)\s", text)} == codes | {0, 1}


def test_readme_is_short():
    assert len(README.splitlines()) <= MAX_LINES


@pytest.mark.parametrize("document", DOCUMENTS)
def test_lines_outside_tables_are_short(document):
    lines = [line for line in DOCUMENTS[document].splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > MAX_COLUMNS] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_code_blocks_are_fenced_with_a_language(document):
    languages = {language for language, _ in _FENCE.findall(DOCUMENTS[document])}
    assert languages <= {"console", "sh", "python", "text"}
    text = prose(DOCUMENTS[document])
    without_lists = re.sub(r"^ *(?:- |\d+\. ).*(?:\n  +.*)*", "", text, flags=re.MULTILINE)
    assert not re.search(r"^    \S", without_lists, re.MULTILINE)


def test_the_python_code_in_readme_compiles():
    blocks = fenced(README, "python")
    assert blocks
    compile("\n".join(blocks), "README.md", "exec")


def anchors(text):
    """The anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_target_of_each_link_and_image_exists(document):
    text = DOCUMENTS[document]
    links = re.findall(r"\]\(([^)\s]+)\)", prose(text))
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        if anchor:
            target = {"": text, "README.md": README, "BUILD.md": BUILD}[path]
            assert anchor in anchors(target), link
        if path and not path.startswith("trainer/"):  # Modules are checked as paths.
            assert (ROOT / path).is_file(), link


def paths(text):
    """The files and folders of the project named in a document."""
    return set(re.findall(r"(?<![\w./])(?:trainer|tests|scripts|\.readme)/[\w./-]*\w", text))


def modules(text):
    """The paths of the modules named in a document, as in run/state, or in its table of modules."""
    named = re.findall(r"`((?:data|model|run)/\w+)(?:\.\w+)?`", text)
    for row in rows(text, "| module | responsibility |"):
        named += re.findall(r"`([\w/]+)`", row[0])
    return {f"trainer/{name}.py" for name in set(named) - NAMES_IN_CHECKPOINTS}


NAMED = sorted({path for text in DOCUMENTS.values() for path in paths(text) | modules(text)})


@pytest.mark.parametrize("path", NAMED)
def test_each_path_named_in_a_document_exists(path):
    assert (ROOT / path).exists()


def test_build_has_a_row_for_each_module():
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "trainer").rglob("*.py")}
    assert {path for path in files if not path.endswith("__init__.py")} - modules(BUILD) == set()


def test_each_test_file_named_in_build_exists():
    named = set(re.findall(r"`(?:tests/)?(\w+_test)(?:\.py)?`", BUILD))
    assert len(named) > 20
    assert {name for name in named if not (ROOT / "tests" / f"{name}.py").exists()} == set()


def test_missing_paths_modules_and_anchors_are_detected():
    table = "| module | responsibility |\n| --- | --- |\n| `none` | |\n"
    text = f"`trainer/none.py`, `run/none`, [none](#none)\n\n{table}"
    assert paths(text) == {"trainer/none.py"}
    assert modules(text) == {"trainer/run/none.py", "trainer/none.py"}
    assert "none" not in anchors(README)
