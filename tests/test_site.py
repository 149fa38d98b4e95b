"""The site of docs/ has every page, every tutorial and every public module; `make site` itself builds it strictly."""

import pkgutil
import re
import runpy
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
TUTORIALS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(DOCS)
    return runpy.run_path(str(DOCS / "hooks.py"))


def leaves(nav: Any) -> Iterator[str]:
    """The files of a navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from leaves(part)


def test_the_navigation_has_every_page_of_docs_and_every_notebook_once() -> None:
    there = [
        "index.md",
        *(path.name for path in DOCS.glob("*.md")),
        *(f"tutorials/{path.stem}.md" for path in TUTORIALS),
    ]
    assert sorted(leaves(SITE["nav"])) == sorted(there)


def test_the_reference_has_every_public_module(hooks: dict[str, Any]) -> None:
    src = ROOT / "src"
    found = {path.relative_to(src).with_suffix("") for path in (src / "upsweep").rglob("*.py")}
    names = {".".join(path.parts).removesuffix(".__init__") for path in found} - {"upsweep"}
    public = {name for name in names if not re.search(r"\._", name)}
    listed = [name for room in hooks["rooms"]() for name in hooks["modules"](room)]
    assert len(listed) == len(set(listed)) and set(listed) == public


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", [*PAGES, *TUTORIALS], ids=lambda path: path.stem)
def test_what_a_page_or_a_tutorial_imports_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace(r"\n", "\n")
    for module, names in re.findall(r"^\W*from (upsweep[\w.]*) import ([\w, ]+)$", text, re.MULTILINE):
        for name in names.split(", "):
            pkgutil.resolve_name(f"{module}.{name}")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_list_begins_after_an_empty_line_without_which_the_site_shows_no_list(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    lines = text.splitlines()
    wrong = [
        line
        for before, line in pairwise(lines)
        if re.match(r"[-*] |\d+\. ", line) and before and not re.match(r"[-*] |\d+\. | ", before)
    ]
    assert not wrong


def test_links_of_the_repository_become_links_of_the_site(hooks: dict[str, Any]) -> None:
    moved = hooks["moved"]
    assert moved("docs/data.md", "index.md") == "data.md"
    assert moved("../benchmarks/judging.md", "benchmarks.md") == "benchmarks/judging.md"
    assert moved("../notebooks/why.ipynb", "tutorials.md") == "tutorials/why.md"
    assert moved("../README.md", "data.md") == "index.md"
    assert moved("recipe.md", "zoo.md") == "recipe.md"


@pytest.mark.parametrize("name", [path.stem for path in TUTORIALS])
def test_a_tutorial_has_a_title_that_says_what_it_shows_and_the_pictures_of_its_own_cells(
    name: str, hooks: dict[str, Any]
) -> None:
    tutorials = hooks["tutorials"]
    assert ": " in tutorials.title(name)
    cells, kept = tutorials.cells(name), sorted((DOCS / "tutorials" / name).iterdir())
    assert {cells[int(path.name[:2])]["cell_type"] for path in kept} == {"code"}
    page = tutorials.page(name)
    assert all(f"({name}/{path.name})" in page for path in kept if path.suffix != ".txt")
    assert any(path.suffix == ".png" for path in kept)
