"""Documents that cannot rot: commands, error codes, links, and the numbers of the worked examples."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from fednode import errors
from fednode.errors import FednodeError
from fednode.node.agreement_tables import Tables
from fednode.node.cli import COMMANDS, build

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def read(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("document", ["README.md", "docs/json.md", "CHANGELOG.md"])
def test_every_command_is_documented(command: str, document: str) -> None:
    assert re.search(rf"(fednode |`){command}\b", read(document))


def test_every_command_of_the_documents_exists() -> None:
    text = "".join(read(name) for name in DOCUMENTS if not name.startswith("docs/adr/"))
    lines = re.findall(r"^    fednode ([a-z][a-z-]*)", text, re.MULTILINE)
    quoted = re.findall(r"`fednode ([a-z][a-z-]*)", text)
    assert set(lines + quoted) <= set(COMMANDS)


def hints() -> list[tuple[str, str]]:
    """(file, text) of every piece of text that shipped code gives as a hint."""
    found: list[tuple[str, str]] = []
    for folder in ("fednode", "node", "hydra", "storage", "training"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.keyword) and node.arg == "hint":
                    texts = [x.value for x in ast.walk(node.value) if isinstance(x, ast.Constant)]
                    found += [(path.name, text) for text in texts if isinstance(text, str)]
    return found


def test_every_command_and_option_of_a_hint_exists() -> None:
    options = {word for name in COMMANDS for word in command_options(name)}
    texts = hints()
    assert len(texts) > 100
    for file, text in texts:
        named = re.findall(r"(?:^|[`:;,] ?|with |run |see )fednode ([a-z][a-z-]*)", text)
        assert set(named) <= set(COMMANDS), (file, text)
        if named:
            assert set(re.findall(r"(?<!\S)(--[a-z][a-z-]*)", text)) <= options, (file, text)


def command_options(name: str) -> set[str]:
    """The long options of a command and of its sub-commands."""
    group = typer.main.get_command(build(name))
    found: set[str] = set()
    waiting = [group.commands[name]]
    while waiting:
        command = waiting.pop()
        waiting += list(getattr(command, "commands", {}).values())
        found |= {word for option in command.params for word in option.opts if word.startswith("--")}
    return found


def error_classes() -> list[type[FednodeError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FednodeError)]


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_every_error_code_stands_beside_its_status(kind: type[FednodeError]) -> None:
    rows = [line for line in read("docs/exit-status.md").splitlines() if line.startswith(f"| {kind.exit_status} |")]
    assert len(rows) == 1
    assert f"`{kind.code}`" in rows[0]


def test_error_codes_are_unique() -> None:
    codes = [kind.code for kind in error_classes()]
    assert len(set(codes)) == len(codes)


def test_the_protocol_names_every_table_of_the_agreement() -> None:
    text = read("docs/protocol.md")
    for name in Tables.model_fields:
        assert f"`[{name}]`" in text or f"`[[{name}]]`" in text, name


def test_the_worked_examples_are_what_the_program_prints() -> None:
    program = ROOT / "tests" / "reader" / "examples.py"
    printed = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=True).stdout
    assert f"```text\n{printed}```\n" in read("docs/protocol.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    here = (ROOT / document).parent
    for target in re.findall(r"\]\(([^)#]+)", read(document)):
        assert target.startswith("https://") or (here / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_documents_name_exist(document: str) -> None:
    for name in re.findall(
        r"`((?:docs|scripts|tests|node|hydra|storage|training|fednode|benchmarks)/[^`*{} ]*)", read(document)
    ):
        assert (ROOT / name).exists(), name


def test_the_changelog_has_an_unreleased_section() -> None:
    assert re.search(r"^## Unreleased$", read("CHANGELOG.md"), re.MULTILINE)


def test_decision_records_have_their_three_parts() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [path.name[:4] for path in records] == [f"{number:04d}" for number in range(1, len(records) + 1)]
    for path in records:
        headings = re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences"], path.name
