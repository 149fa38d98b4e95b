"""Overrides as they are typed, turned into Hydra's grammar, which allows few characters.

Values that the grammar cannot read are quoted, so that they arrive as typed. Others stay as they are, except for keys
that name a path: `data.root=2024` is not a number, and without `-m` `data.root=a,b` is one folder.
"""

import os
import re
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import compress, groupby, pairwise
from operator import not_
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser, create_functions
from hydra.core.override_parser.types import ChoiceSweep, Glob, Quote, QuotedString
from hydra.errors import HydraException

from upsweep.common.errors import UserError

MULTIRUN = {"-m", "--multirun"}
SHORT = {"-cp": "--config-path", "-cn": "--config-name", "-cd": "--config-dir", "-p": "--package"}
WITH_VALUE = {*SHORT, *SHORT.values(), "--cfg", "-c", "--experimental-rerun"}
INFO = {"--info", "-i"}  # may have a value

# The last word of a key that names a file or folder, in anybody's config: data.val_root, hydra.run.dir, checkpoint.
PATH = re.compile(
    r"(.*[._])?(root|dir|subdir|folder|path|file|checkpoint|init_from|teacher|resume|sweep|study|input|output)"
)
SWITCH = re.compile(r".*\.(file|checkpoint|sweep|input|output)")  # a user's own class may also have such a key
FUNCTION = re.compile(rf"({'|'.join(create_functions().functions)})\(.*\)", re.DOTALL)
ONE = re.compile(r"^(_target_|source):", re.MULTILINE)  # in the file of a choice that stands alone
APART = ("logger",)  # groups of which several stand beside each other, each in a node of its own: `logger.wandb`
NAMES = re.compile(r"[A-Za-z]\w*(,[A-Za-z]\w*)*")
ITEM = re.compile(r"""\s*('(?:\\.|[^'\\])*'(?=\s*(?:,|$))|"(?:\\.|[^"\\])*"(?=\s*(?:,|$))|[^,]*)(?:,|$)""", re.DOTALL)


def quoted(value: str) -> str:
    """A value that Hydra's grammar reads back as this very string."""
    return QuotedString(value.replace("${", "\\${"), Quote.single).with_quotes()


def plain(value: str) -> str:
    """The string that a value of the command line stands for: without quotes, if it has any."""
    read = _read(value)
    return read.replace("\\${", "${") if isinstance(read := getattr(read, "text", read), str) else value


def sweeps(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for several jobs."""
    return any(a in MULTIRUN or a == "hydra.mode=MULTIRUN" or searches(a) for a in arguments)


def searches(argument: str) -> bool:
    """Whether an override asks for a search."""
    key, _, value = argument.partition("=")
    return key == "hparams_search" and value not in ("", "null")


def values_of(override: str) -> list[str] | None:
    """The values of an override, as typed, of `glob(...)` its patterns; None: a range, or what cannot be read."""
    try:
        read = OverridesParser.create().parse_override(override)
    except HydraException:
        return None
    value: Any = read._value
    if isinstance(value, Glob):
        return None if value.exclude else value.include
    if read.is_discrete_sweep():
        return list(map(str, read.sweep_string_iterator()))
    return None if read.is_sweep_override() else [override.partition("=")[2]]


def together(arguments: Sequence[str]) -> list[str]:
    """A command line whose overrides stand together, as argparse wants: `a=1 -m b=2` becomes `a=1 b=2 -m`."""
    pairs = list(zip(("", *arguments), arguments, strict=False))
    flags = [a.startswith("-") or last in WITH_VALUE or ("=" not in a and last in INFO) for last, a in pairs]
    if [flag for flag, _ in groupby(flags)].count(False) < 2:
        return list(arguments)
    return [*compress(arguments, map(not_, flags)), *compress(arguments, flags)]


def readable(arguments: Sequence[str], paths: Collection[str] = ()) -> list[str]:
    """A command line that Hydra reads as it was typed; `~/` at the start of a value is the home folder.

    Values that the grammar cannot read are quoted. So are values of a key that names a path (see `PATH`, and `paths`),
    if the grammar would read a number or, with one job alone, a sweep. Lists, interpolations, null, functions
    and quoted values stay. In a list, and with -m, a comma separates values that are each treated so.

    Raises:
        UserError: a path is empty, as a variable of the shell is that was never set: it would be the current folder.
    """
    write = partial(_readable, paths=paths, sweep=sweeps(arguments))
    before = ("", *arguments)
    return [a if last in WITH_VALUE else write(a) for last, a in zip(before, arguments, strict=False)]


def config_dirs(arguments: Sequence[str]) -> list[Path]:
    """The folders of configs of one's own that a command line names."""
    options = ("--config-dir", "-cd")
    apart = [value for option, value in pairwise(arguments) if option in options]
    joined = [value for option, equals, value in (a.partition("=") for a in arguments) if equals and option in options]
    return [Path(value) for value in (*apart, *joined)]


def of_the_task(arguments: Sequence[str], folders: Collection[Path]) -> list[str]:
    """A command line in which an experiment is replaced by its version for the chosen task, if it has one.

    `experiment=article_study task=generation` becomes `experiment=article_study/generation task=generation`, where one
    of the config `folders` has `experiment/article_study/generation.yaml`. Everything else stays.
    """
    (*_, task) = ["", *(a.removeprefix("task=") for a in arguments if a.startswith("task="))]

    def version(argument: str) -> str:
        place = Path("experiment", argument.removeprefix("experiment="), f"{task}.yaml")
        there = task and argument.startswith("experiment=") and any((f / place).is_file() for f in folders)
        return f"{argument}/{task}" if there else argument

    return [version(argument) for argument in arguments]


def in_place(arguments: Sequence[str], folders: Collection[Path]) -> list[str]:
    """A command line in which a group chosen within another group's node has Hydra's name for it.

    `adversary.recipe.norm=spectral,none` becomes `norm@adversary.recipe.norm=...`, where `adversary` and `norm` are
    groups of the config `folders`, and the values are names. `feed`, which a task chooses, lies in the task's `data`.
    Everything else stays. Of a sweep, a single name becomes a
    choice of one: Hydra composes a sweep's config without what is swept, and `adversary` may be.
    """
    several = sweeps(arguments)

    def named(argument: str) -> str:
        key, _, value = argument.partition("=")
        if key == "feed":
            return f"feed@task.data={value}"
        outer, _, group = key.rpartition(".")
        both = all(
            name and any((folder / name).is_dir() for folder in folders) for name in (outer.split(".")[0], group)
        )
        if not (both and NAMES.fullmatch(value)) or value == "null":
            return argument
        return f"{group}@{key}=choice({value})" if several and "," not in value else f"{group}@{argument}"

    return [named(argument) for argument in arguments]


def hold_to_one_each(arguments: Sequence[str], folders: Collection[Path]) -> None:
    """Raise UserError for a list of choices of a group of the config `folders` that takes one.

    Hydra would merge them: the class of the last one with arguments of the others. Only groups whose files name no
    class and no source of images, such as `degradation` and `metrics`, take several, and those that stand `APART`.
    """
    for argument in arguments:
        group, _, value = argument.partition("=")
        names = re.findall(r"\w+", value) if re.fullmatch(r"\[[\w, ]*\]", value) else []
        files = [folder / group / f"{name}.yaml" for name in names for folder in folders]
        if (
            group not in APART
            and len(names) > 1
            and any(file.is_file() and ONE.search(file.read_text("utf-8")) for file in files)
        ):
            raise UserError(
                f"{argument}: a run takes one choice of {group}. For a sweep over them: -m {group}={','.join(names)}"
            )


def _readable(argument: str, paths: Collection[str], sweep: bool) -> str:
    key, equals, value = argument.partition("=")
    if not equals or key.startswith("~"):
        return argument
    if key.startswith("-"):
        return f"{key}={_at_home(value)}"
    path = PATH.fullmatch(key.lstrip("+")) is not None
    if path and not value.strip() and not key.startswith("+") and not key.endswith("subdir"):  # which may be none
        raise UserError(f"{argument} is empty: give a path, or leave {key}= out.")
    path = path or key in paths  # whose doors have sentences of their own
    sweep = sweep and key != "resume" and not key.startswith("hydra.")  # which nothing goes through
    if SWITCH.fullmatch(key) and key not in paths and value.lower() in ("true", "false"):
        return argument
    return f"{key}={_written(value, path=path, sweep=sweep)}"


def _written(value: str, *, path: bool, sweep: bool) -> str:
    """A value for Hydra's grammar."""
    value = _at_home(value)
    read = _read(value)
    if read is ValueError:
        bare = [item for item in _items(value[1:-1]) if item[:1] not in ("'", '"')]
        if value.startswith("[") and value.endswith("]") and set("[]") & set("".join(bare)):
            return value  # lists in lists, or several of them: Hydra says what it cannot read
        for opening, closing in (("[", "]"), ("choice(", ")"), *((("", ""),) if sweep else ())):
            inner = value.removeprefix(opening).removesuffix(closing)
            items = list(_items(inner))
            if f"{opening}{inner}{closing}" == value and all(items) and (opening or len(items) > 1):
                return f"{opening}{','.join(_written(item, path=path, sweep=False) for item in items)}{closing}"
        return value if FUNCTION.fullmatch(value) and not path else _quoted(value)
    one = isinstance(read, ChoiceSweep) and read.simple_form and not sweep
    other = isinstance(read, int | float) or (isinstance(read, str) and read != value and "\\" not in value)
    return _quoted(value) if path and (one or other) else value


def _quoted(value: str) -> str:
    """As `quoted`, but an interpolation stays one."""
    return QuotedString(value, Quote.single).with_quotes() if re.search(r"\$\{.*\}", value) else quoted(value)


def _items(text: str) -> Iterator[str]:
    """The parts between commas; commas within quotes do not count."""
    end = -1
    while end < len(text) and (match := ITEM.match(text, max(end, 0))):
        yield match[1].strip()
        end = match.end() if match[0].endswith(",") else len(text)


def _at_home(value: str) -> str:
    return os.path.expanduser(value) if value == "~" or value.startswith("~/") else value  # noqa: PTH111 - as it is


def _read(value: str) -> Any:
    """The type that Hydra's grammar reads in a value; ValueError if it cannot read it."""
    try:
        return OverridesParser.create().parse_override(f"key={value}")._value
    except HydraException:
        return ValueError
