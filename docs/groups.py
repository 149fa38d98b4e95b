"""The table of docs/choices.md, from the first line of every YAML file in conf/: --write it, or --check it."""

import sys
from pathlib import Path

from upsweep import cli

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- groups: written by docs/groups.py -->", "<!-- end of groups -->"
GROUPS = (
    *(
        "generator",
        "adversary",
        "discriminator",
        "init",
        "activation",
        "norm",
        "dropout",
        "upsampler",
        "objective",
        "metrics",
        "optimizer",
        "scheduler",
    ),
    *("task", "data", "feed", "degradation", "protocol"),
    *("training", "trainer", "logger", "callbacks", "debug", "experiment", "hparams_search"),
)


def description(path: Path) -> str:
    """What a config file says of itself."""
    said = cli.description(path.read_text(encoding="utf-8"))
    return said or sys.exit(f"{path.relative_to(ROOT)} begins with no comment that says what it is.")


def default_of(group: str) -> str:
    """The name that train.yaml chooses in a group."""
    for line in (ROOT / "conf" / "train.yaml").read_text(encoding="utf-8").splitlines():
        key, _, value = line.strip().removeprefix("- ").partition(": ")
        if key == group and line.startswith("  - "):
            return value.split("#")[0].strip()
    return "null"


def table() -> str:
    """Markdown: a row a choice, the default first in bold."""
    known = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} - {"local", "hydra"}
    if known != set(GROUPS):
        sys.exit(f"docs/groups.py lists {sorted(GROUPS)}, conf/ has {sorted(known)}.")
    lines = ["| group | choice | what it is |", "| --- | --- | --- |"]
    for group in GROUPS:
        default = default_of(group)
        files = sorted((ROOT / "conf" / group).rglob("*.yaml"))
        names = {str(f.relative_to(ROOT / "conf" / group).with_suffix("")): description(f) for f in files}
        for i, (name, said) in enumerate(sorted(names.items(), key=lambda item: (item[0] != default, item[0]))):
            lines.append(
                f"| {f'`{group}`' if i == 0 else ''} | {f'**{name}**' if name == default else name} | {said} |"
            )
    return "\n".join(lines)


def main(mode: str) -> None:
    """Write the table into docs/choices.md, or fail where it differs."""
    page = ROOT / "docs" / "choices.md"
    text = page.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN, 1)
    _, tail = rest.split(END, 1)
    new = f"{head}{BEGIN}\n{table()}\n{END}{tail}"
    if mode == "--write":
        page.write_text(new, encoding="utf-8")
    elif new != text:
        sys.exit("docs/choices.md differs from conf/: run `make docs`.")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "--check")
