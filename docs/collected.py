"""What the pages of figures share (claims.py, zoo.py): where a sweep came from, tables, and blocks of a page."""

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from upsweep.common.files import write_whole
from upsweep.runs.layout import ABOUT
from upsweep.runs.manifest import Manifest

Row = dict[str, str]
END = "<!-- end of figures -->"


def manifest_of(sweep: Path) -> Manifest:
    """What a sweep consists of. Exits where the folder is not one's."""
    return Manifest.read(sweep) or sys.exit(f"{sweep} is not the folder of a sweep.")


def keep_about(sweep: Path, folder: Path) -> None:
    """Write down in `folder` how a sweep was made."""
    manifest = manifest_of(sweep)
    about = {key: getattr(manifest.about, key) for key in ("started", "commit", "versions", "machine")}
    words = (_as_begun(word, manifest.about.directory) for word in manifest.about.command[2:])
    about["command"] = ["python", "src/train.py", *filter(None, words)]
    write_whole(folder / ABOUT, json.dumps(about, indent=1) + "\n")


def _as_begun(word: str, here: str) -> str:
    """A word of a sweep that was begun or went on in a folder, as on the line that would begin it; nothing for some."""
    word = word.replace(f"{here}/", "") if here else word
    key, _, value = word.partition("=")
    if key == "hydra.sweep.dir":
        name = Path(value.strip("'")).name
        return f"{key}=multirun/{name}"
    return "" if key == "hydra.launcher.resume" else word


def made(folder: Path, rows: Sequence[Row]) -> str:
    """The command, commit and versions behind the rows of a sweep that was collected."""
    about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    done = sum(row["state"] == "finished" for row in rows)
    versions = f"torch {about['versions']['torch']}, commit {str(about['commit'])[:7]}"
    return f"`{' '.join(about['command'])}`: {done} of {len(rows)} jobs finished; {versions}, {about['started'][:10]}."


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown, words left and the figures right."""
    lines = ["| " + " | ".join(headers) + " |", "| --- |" + " ---: |" * (len(headers) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def interval_of_mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean of two values or more, and half of Student's 95 % interval for it."""
    error = statistics.stdev(values) / len(values) ** 0.5
    return statistics.fmean(values), float(stats.t.ppf(0.975, len(values) - 1)) * error


def rendered(page: Path, blocks: Mapping[str, Callable[[], str]]) -> str:
    """The text of a page with every block of figures written anew. Exits where the page lacks one."""
    text = page.read_text(encoding="utf-8")
    for name, block in blocks.items():
        begin = f"<!-- figures: {name} -->"
        before, found, rest = text.partition(begin)
        if not found or END not in rest:
            sys.exit(f"{page.name} has no block {begin} ... {END}.")
        text = f"{before}{begin}\n\n{block()}\n\n{END}{rest.partition(END)[2]}"
    return text


def write_or_check(mode: str, page: Path, blocks: Mapping[str, Callable[[], str]], script: str) -> None:
    """--write the blocks of a page; or --check whether they are as written, and exit where they are not."""
    text = rendered(page, blocks)
    if mode == "--write":
        write_whole(page, text)
    elif page.read_text(encoding="utf-8") != text:
        sys.exit(f"docs/{page.name} differs from what was collected: run python docs/{script} --write.")
