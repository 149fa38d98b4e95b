"""What MkDocs is told while it builds the site (mkdocs.yml): which pages come from outside of docs/, and their links.

- README.md is the first page.
- Every notebook is a page (tutorials.py).
- Every package of src/upsweep has a page in the reference, written from its docstrings.
- A file of the repository that a page links to, such as a benchmark, is part of the site under its own path.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tutorials

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "upsweep"
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[#)])")
FENCE = re.compile(r"^```(\w+) (?:file=(\S+)|run)$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation by the reference."""
    assert config.nav is not None
    config.nav.append({"Reference": [{name: f"reference/{name}.md"} for name in rooms()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside of docs/, and what they link to there."""
    from mkdocs.structure.files import File

    made = {"index.md": (ROOT / "README.md").read_text(encoding="utf-8")}
    made |= {f"tutorials/{name}.md": tutorials.page(name) for name in tutorials.NOTEBOOKS}
    made |= {f"reference/{name}.md": reference(name) for name in rooms()}
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    waiting = list(files.documentation_pages())
    while waiting:
        page = waiting.pop()
        for target in outside(page.content_string, source(page.src_uri)):
            if files.get_file_from_path(target) is None:
                file = File.generated(config, target, abs_src_path=str(ROOT / target))
                files.append(file)
                waiting += [file] if file.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links as they are in the site, and the names of example files as titles."""
    titled = FENCE.sub(lambda found: f"```{found[1]}" + (f' title="{found[2]}"' if found[2] else ""), markdown)
    return LINK.sub(lambda found: moved(found[0], page.file.src_uri), titled)


def rooms() -> list[str]:
    """The packages of upsweep and its single modules, by name."""
    packages = [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    return sorted([*packages, *(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("_"))])


def modules(room: str) -> Iterator[str]:
    """The dotted names of a room's public modules, itself first."""
    yield f"upsweep.{room}"
    for path in sorted((PACKAGE / room).rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if not any(part.startswith("_") for part in parts):
            yield ".".join(parts)
        elif path.name == "__init__.py" and len(parts) > 3:
            yield ".".join(parts[:-1])


def reference(room: str) -> str:
    """The page of a room: each of its modules, to be filled from docstrings."""
    return "\n\n".join([f"# upsweep.{room}", *map(entry, modules(room))]) + "\n"


def entry(module: str) -> str:
    """What mkdocstrings fills: all that a module defines; of a package that only passes names on, what it is."""
    init = PACKAGE.parent.joinpath(*module.split("."), "__init__.py")
    passes_on = init.exists() and not re.search(r"^(def|class) ", init.read_text(encoding="utf-8"), re.MULTILINE)
    return f"::: {module}" + ("\n    options: {members: false}" if passes_on else "")


def source(uri: str) -> str:
    """Where a page of the site lies in the repository."""
    if uri == "index.md":
        return "README.md"
    return f"docs/{uri}" if (ROOT / "docs" / uri).exists() or not (ROOT / uri).exists() else uri


def outside(markdown: str, path: str) -> Iterator[str]:
    """The files outside of docs/ to which the page at `path` links, but for those that are pages anyway."""
    for link in LINK.findall(markdown):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
        if (ROOT / target).is_file() and place(target) == target:
            yield target


def moved(link: str, uri: str) -> str:
    """A link of the repository as a link of the site's page `uri`."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source(uri)), link))
    if not (ROOT / target).exists():
        return link
    return posixpath.relpath(place(target), posixpath.dirname(uri) or ".")


def place(path: str) -> str:
    """Where a file of the repository lies in the site."""
    if path == "README.md":
        return "index.md"
    if path.endswith(".ipynb"):
        return f"tutorials/{Path(path).stem}.md"
    return path.removeprefix("docs/")
