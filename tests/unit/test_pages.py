"""README and docs hold together: links, cited files, commands in the prose, and how answers are compared.

tests/processes/test_documentation.py runs their examples.
"""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

import pytest

from statsapi.cli.main import main
from tests import examples
from tests.servers import ROOT


def test_few_examples_are_not_run() -> None:
    """Those that need what no test can have, each with its reason."""
    reasons = [block.reason_not_run for page in examples.PAGES for block in examples.blocks(page)]
    left_out = [reason for reason in reasons if reason is not None]
    assert all(left_out)
    assert len(left_out) <= 5


@pytest.mark.parametrize(
    ("shown", "said", "same"),
    [
        ('{"a":1,\n "b":2}', '{"a":1,"b":2}', True),
        ('{"at":"2026-11-26T07:45:00+00:00"}', '{"at":"2027-01-02T03:04:05.678901+00:00"}', True),
        ('{"at":"2026-11-26T07:45:00+00:00"}', '{"at":null}', False),
        ('{"a":…}', '{"a":{"b":[1]}}', True),
        ('{"a":1}', '{"a":1.0}', False),
        ('{"a":1}', '{"a":1,"b":2}', False),
        ("", "curl: (7) Failed to connect", False),
    ],
)
def test_answers_are_compared(shown: str, said: str, same: bool) -> None:
    """Times by their form, `…` as anything, all else as it stands."""
    assert examples.answers(shown, said) is same


@pytest.mark.parametrize("page", examples.PAGES)
def test_no_command_escapes_the_examples(page: str) -> None:
    """Blocks are fenced, not indented, and the lines fit a screen but for rows of tables."""
    text = examples.prose(page)
    assert not re.search(r"^\n {4,}(?:\$ |curl |make |statsapi )", text, re.MULTILINE)
    too_long = [line for line in examples.read(page).splitlines() if len(line) > 200 and not line.startswith("|")]
    assert not too_long


@pytest.mark.parametrize("page", examples.PAGES)
def test_commands_name_what_a_path_holds(page: str) -> None:
    """`statsapi` is what installing gives; Python, pip and Gunicorn are those of .venv: Debian refuses its own pip."""
    scripts = [line for block in examples.blocks(page) for line in block.text.splitlines() if block.language != "text"]
    program = re.compile(r"(?<![\w./-])(\S*)(?:python -m (?!statsapi\.cli|gunicorn)|gunicorn (?!-w)|pip )")
    for command in [*scripts, *examples.spans(page)]:
        for found in program.finditer(command):
            assert found[1] == ".venv/bin/", command


@pytest.mark.parametrize("page", examples.PAGES)
def test_commands_in_the_prose_are_known(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each `statsapi …` between backquotes is a command with options that it has."""
    for span in examples.spans(page):
        words = span.split()
        if words[0] == "statsapi" and len(words) > 1 and "-" not in words[1]:
            ours = takewhile(lambda word: word != "--", words[1:])  # behind it stand Gunicorn's
            status = main([*(word for word in ours if word != "…"), "--help"])
            assert status == 0, (span, capsys.readouterr().err)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*examples.PAGES, "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link names a file of the repository, and a heading in it."""
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", examples.read(page)):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


@pytest.mark.parametrize("page", examples.PAGES)
def test_files_in_the_prose_exist(page: str) -> None:
    """Each path of the repository between backquotes is there: a file that moves takes its mention along."""
    for span in examples.spans(page):
        if re.fullmatch(r"(?:statsapi|tests|deploy|docs|benchmarks)/[\w./-]*", span):
            assert (ROOT / span).exists(), span


def test_the_code_cites_pages_that_exist() -> None:
    """Each page that a comment names is in the tree."""
    files = [
        *(file for folder in ("statsapi", "deploy", "benchmarks", "tests") for file in (ROOT / folder).rglob("*")),
        *(ROOT / name for name in ("Dockerfile", "Makefile", "docker-compose.yml", "gunicorn.conf.py", "wsgi.py")),
    ]
    for file in files:
        if file.suffix in ("", ".py", ".conf", ".yml", ".service", ".socket", ".lua", ".sql") and file.is_file():
            for cited in re.findall(r"[\w/-]+\.md\b", file.read_text()):
                assert (ROOT / cited).exists() or (ROOT / "docs" / cited).exists(), f"{file} cites {cited}"


def test_the_readme_is_short() -> None:
    """A front door, not a manual."""
    assert len(examples.read("README.md").splitlines()) <= 130


def test_make_serves_with_what_it_has_installed() -> None:
    """`make serve` and the line that the docs give start the same."""
    makefile = (ROOT / "Makefile").read_text()
    assert "VENV := .venv\n" in makefile
    assert "\t$(BIN)/gunicorn wsgi:app\n" in makefile
    assert "`.venv/bin/gunicorn wsgi:app`" in examples.read("docs/deploying.md")
