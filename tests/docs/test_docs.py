"""The documentation is true: what it shows runs (see `doc_pages`), what is generated is current."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from headrace.stream.task import validate
from tests.support import doc_pages

PAGES = [p for p in doc_pages.PAGES if p.name not in doc_pages.KAFKA and doc_pages.runs(p)]
UNREACHABLE = "127.0.0.1:1"  # a page that needs Kafka belongs to doc_pages.KAFKA
COLUMNS = 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_runs(page: Path, tmp_path: Path) -> None:
    doc_pages.run(page, tmp_path, KAFKA_BOOTSTRAP=UNREACHABLE)


@pytest.mark.parametrize("page", doc_pages.PAGES, ids=lambda page: page.name)
def test_every_block_is_run_or_for_reading(page: Path) -> None:
    for block in doc_pages.blocks(page):
        if block.language == "toml":
            table = tomllib.loads("\n".join(block.lines))
            if "name" in table:
                validate(table, f"{page.name}, line {block.first}")
        else:
            assert block.language in {"sh", "python", *doc_pages.READ_ONLY}, block.first


def test_the_readme_s_test_command_is_what_ci_runs() -> None:
    section = doc_pages.README.read_text("utf-8").partition(doc_pages.SKIPPED)[2]
    block = section.split("```")[1].splitlines()
    commands = [line.partition("#")[0].strip() for line in block[1:]]
    assert commands == [
        "pip install uv && uv run headrace demo",
        "pip install uv && uv run pytest",
    ]
    ci = (doc_pages.ROOT / ".ci/run").read_text("utf-8").splitlines()
    assert {"uv run pytest", "uv run --group docs mkdocs build --strict"} <= set(ci)


def test_the_readme_is_short() -> None:
    assert len(doc_pages.README.read_text("utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", doc_pages.PAGES, ids=lambda page: page.name)
def test_prose_is_narrow(page: Path) -> None:
    """Lines of tables and what terminals print may be as long as they are."""
    shown = [
        range(block.first, block.first + len(block.lines))
        for block in doc_pages.blocks(page, whole=True)
        if block.language in ("text", "toml") or page == doc_pages.README
    ]
    lines = enumerate(page.read_text("utf-8").splitlines(), 1)
    long = [at for at, line in lines if len(line) > COLUMNS and not line.startswith("|")]
    assert not [at for at in long if not any(at in block for block in shown)]


def test_links_of_the_readme_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)", doc_pages.README.read_text("utf-8")):
        assert (doc_pages.ROOT / link).is_file(), link


def test_generated_tables_are_those_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(doc_pages.ROOT / "docs"))
    import reference

    try:
        for page in (doc_pages.ROOT / "docs").glob("*.md"):
            text = page.read_text("utf-8")
            assert reference.fill(text) == text, "run: uv run python docs/reference.py"
    finally:
        sys.modules.pop("reference", None)
