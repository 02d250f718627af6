"""No document names an option that does not exist, and what it tells people to type is run, or marked."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import click
import pytest
from support.documents import DOCUMENTS, ROOT, blocks, inline_commands, our_commands
from support.lent import invoke
from support.workspace import load_command

BLOCKS = [block for path in DOCUMENTS for block in blocks(path)]
COMMANDS = ("m2e-cache", "m2e-extract", "m2e-manifest", "m2e-predict", "m2e-train")
# What is run in `make test`; the others take long.
SHORT = ("README.md", "python.md")
# Later options win: what takes long is cut short, and nothing else is changed.
SHORTER = {
    "m2e-train": ["--epochs", "1", "--device", "cpu"],
    "m2e-extract": ["--jobs", "1", "--device", "cpu"],
    "m2e-predict": ["--jobs", "1", "--device", "cpu"],
}


def check(words: list[str]) -> None:
    """Fail unless a command line's subcommand and options exist, with values of the right kind."""
    command, name, arguments = load_command(words[0]), words[0], words[1:]
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        context = click.Context(command, info_name=name)
        name, found = arguments[0], command.get_command(context, arguments[0])
        assert found, f"{words}: {name} is no command"
        command, arguments = found, arguments[1:]
    if arguments[:1] in (["--help"], ["..."]) or isinstance(command, click.Group):
        return
    context = click.Context(command, info_name=name)
    values, _, _ = command.make_parser(context).parse_args(list(arguments))
    for parameter in command.params:
        given = values.get(parameter.name or "")
        if isinstance(parameter.type, click.Choice | click.types.IntParamType) and isinstance(given, str):
            placeholder = re.fullmatch(r"[A-Z]+", given)
            assert placeholder or parameter.type.convert(given, parameter, context) is not None


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_option_exists(path: Path) -> None:
    lines = [line for block in blocks(path) for line in block.commands] + list(inline_commands(path))
    for line in lines:
        for words in our_commands(line):
            check(words)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_in_help_exist(name: str) -> None:
    groups = [load_command(name)]
    found = 0
    while groups:
        command = groups.pop()
        for line in (command.epilog or "").replace("Example:", "\n").splitlines():
            for words in our_commands(re.split(r"\s{3,}", line.strip())[0]):
                check(words)
                found += 1
        if isinstance(command, click.Group):
            context = click.Context(command)
            groups += [each for sub in command.list_commands(context) if (each := command.get_command(context, sub))]
    assert found


def test_make_targets_and_extras_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    for block in BLOCKS:
        for line in block.commands:
            if found := re.match(r"make\b(.*)", line):
                named = {word for word in found[1].split() if "=" not in word}
                assert named <= targets, f"{block}: {line}"
            for names in re.findall(r"(?:m2e|\.)\[([a-z,]+)\]", line):
                assert set(names.split(",")) <= extras, f"{block}: {line}"


@pytest.mark.parametrize(
    "path",
    [path if path.name in SHORT else pytest.param(path, marks=pytest.mark.long) for path in DOCUMENTS],
    ids=lambda path: path.name,
)
def test_what_is_not_marked_runs(
    path: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks of a document, from top to bottom, in one copy of the workspace."""
    todo = [block for block in blocks(path) if not block.mark]
    if not any(block.language == "python" or any(map(our_words, block.commands)) for block in todo):
        return
    monkeypatch.chdir(shutil.copytree(workspace, tmp_path / "here"))
    for block in todo:
        if block.language == "python":
            exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})
        for line in block.commands:
            for words in our_words(line):
                run(str(block), line, words)


def our_words(line: str) -> list[list[str]]:
    return list(our_commands(line))


def run(where: str, line: str, words: list[str]) -> None:
    """Run one of our commands as it stands in `line`, with what comes through its pipe."""
    before, pipe, _ = line.partition("| " + words[0])
    piped = subprocess.run(before, shell=True, capture_output=True, text=True, check=True).stdout if pipe else None
    extra = [] if {"--evaluate", "--import-checkpoint", "--help"} & set(words) else SHORTER.get(words[0], [])
    if "--table" in words:
        extra = [*extra, "--seeds", "0"]
    result = invoke(load_command(words[0]), [*words[1:], *extra], input=piped, catch_exceptions=False)
    if result.exit_code:
        pytest.fail(f"{where}: {shlex.join(words)}: exit code {result.exit_code}: {result.stderr[-500:]}")
    if redirected := re.search(r"> (\S+)$", line):
        Path(redirected[1]).write_text(result.stdout, encoding="utf-8")
