"""The frame of every door: Hydra's main, with one clear sentence where the person at the keyboard erred.

Imports nothing heavy: `--help` and `--cfg job` must answer at once.
"""

import functools
import gc
import os
import pydoc
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

import hydra
from hydra._internal import hydra as hydra_app
from hydra._internal import utils as hydra_utils
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra.core.default_element import ConfigDefault
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.utils import run_job as hydras_run_job
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from upsweep import sentences
from upsweep.common import telling
from upsweep.common.checks import as_typed, fits, hold_to_signature, wanted
from upsweep.common.errors import UserError
from upsweep.common.memory import keep_freed
from upsweep.common.parents import watch_parent
from upsweep.common.ranks import first_rank, settle_ranks
from upsweep.common.words import never_raise
from upsweep.runs.folders import writable
from upsweep.runs.result import INTERRUPTED, REQUEUE
from upsweep.sweeps.overrides import (
    APART,
    MULTIRUN,
    config_dirs,
    hold_to_one_each,
    in_place,
    of_the_task,
    readable,
    together,
)
from upsweep.sweeps.resuming import resumed

Task = Callable[[DictConfig], float | None]
HERE = Path(__file__).resolve().parent
# what can be chosen: in the package that a wheel installs, beside src/ in a checkout
CONF = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parents[1] / "conf"


def door(
    config_name: str,
    config_path: Path = CONF,
    paths: Sequence[str] = (),
    claims: bool = False,
    meant: Mapping[str, str] | None = None,
) -> Callable[[Task], Callable[[], None]]:
    """Make a task function the entry point of a script whose config is `config_path/config_name.yaml`.

    What is typed arrives as it was (`overrides.readable`): `input=photo (1).jpg` is no syntax error. `paths` are keys
    that name files although their names do not say so. `meant` has beginnings of words, each with what it stands for:
    `args.` -> `++args.` for a node that holds any keys.
    With `claims` the output folder becomes this process's alone before Hydra writes into it (`folders.writable`), and
    SIGTERM ends it with the code by which a scheduler runs it again.

    A UserError is printed as its sentence, with exit code 1 and no traceback, and so are an unknown key or
    name (with those that exist) and an output folder that cannot be written. HYDRA_FULL_ERROR=1 brings the traceback
    back, and so does any `debug` choice for another error of the task.
    """

    def decorate(task: Task) -> Callable[[], None]:
        begun = threading.Event()  # the task, before which Hydra alone has a say

        @functools.wraps(task)
        def civil(config: DictConfig) -> float | None:
            begun.set()
            with _ending_with(sentences.of_the_task):
                return task(config)

        def report(func: Callable[[], Any]) -> Any:
            """Hydra's way to run and to print what went wrong, unless we have a sentence for it."""
            return hydras_report(
                _ending_with(lambda error: None if begun.is_set() else sentences.of_the_config(error))(func)
            )

        entry = hydra.main(version_base="1.3", config_path=str(config_path), config_name=config_name)(civil)
        hydras_report = hydra_utils.run_and_report

        @functools.wraps(task)
        def run() -> None:
            begun.clear()
            with (
                _replaced(hydra_utils, "run_and_report", report),
                _replaced(hydra_app, "run_job", _claiming_run_job if claims else hydras_run_job),
                _replaced(hydra_app.Hydra, "format_config_groups", _config_groups),
                _replaced(hydra_app.Hydra, "get_mode", _mode),
                _replaced(ConfigDefault, "get_package", _package),
            ):
                _enter(entry, paths, claims, config_path, meant or {})

        return run

    return decorate


@contextmanager
def _ending_with(tell: Callable[[Exception], object]) -> Iterator[None]:
    """Print what `tell` makes of an error, and exit; it goes on where that is None, or its traceback wanted."""
    try:
        yield
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1" or (sentence := tell(error)) is None:
            raise
        print(sentence, file=sys.stderr)
        telling.tell(error=str(sentence))
        sys.exit(1)


def _claiming_run_job(*, config: DictConfig, **others: Any) -> Any:
    folder = writable(Path(str(config.hydra.run.dir)), resume=config.get("resume") is not None)
    try:
        return hydras_run_job(config=config, **others)
    except OSError as error:
        error.filename = error.filename or str(folder)  # a write does not say where it failed
        raise


_hydras_mode = hydra_app.Hydra.get_mode


def _mode(app: hydra_app.Hydra, config_name: str | None, overrides: list[str]) -> RunMode | None:
    """Hydra's mode, for which it composes the whole config once more; a job of a sweep has been told."""
    return RunMode.RUN if "hydra.mode=RUN" in overrides else _hydras_mode(app, config_name, overrides)


def _enter(entry: Callable[[], Any], paths: Sequence[str], claims: bool, conf: Path, meant: Mapping[str, str]) -> None:
    # How long an idle OpenMP thread spins; torch reads it on import. libgomp's own 300,000 made a training step
    # 4 to 10 times slower beside one busy core, none at all 1.5 to 3 times slower on two idle ones.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "4000")
    keep_freed()
    never_raise()
    if any(option.startswith("error") for option in sys.warnoptions):
        warnings.filterwarnings("default")  # PYTHONWARNINGS=error would end a training for the word of a library
    watch_parent()
    if claims and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(REQUEUE))
    try:
        with _ending_with(sentences.of_the_door):
            settle_ranks(os.environ)
            arguments = resumed(readable(together([_meant(word, meant) for word in sys.argv[1:]]), paths))
            folders = [conf, *config_dirs(arguments)]
            sys.argv[1:] = of_the_task(in_place(arguments, folders), folders)
            hold_to_one_each(sys.argv[1:], folders)
            _one_folder(sys.argv[1:])
            entry()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        sys.stdout.flush()


def _meant(word: str, meant: Mapping[str, str]) -> str:
    """A word of the command line, with its beginning replaced by what that stands for."""
    return next((new + word.removeprefix(old) for old, new in meant.items() if word.startswith(old)), word)


@contextmanager
def importing() -> Iterator[None]:
    """Import heavy modules without garbage collection, a quarter of the time, and leave them out of every later one.

    Raises:
        UserError: one cannot be imported here: a variable of the environment says nonsense, or a library is missing.
    """
    gc.disable()
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"torch, or what it needs, cannot start with this environment: {said[:300]}") from error
    finally:
        gc.freeze()
        gc.enable()


def own_targets() -> frozenset[str]:
    """Every class that the config folders in use name for a part of a generator: a checkpoint may name those too.

    The folders are conf/ and whatever `--config-dir` adds, all of them the user's. Call it in a task.
    """
    groups = ("generator", "init", "activation", "norm", "dropout", "upsampler")
    folders = [Path(source.path) for source in HydraConfig.get().runtime.config_sources if source.schema == "file"]
    files = (file for folder in folders for group in groups for file in sorted((folder / group).glob("*.yaml")))
    nodes = (OmegaConf.load(file) for file in files)
    return frozenset(str(node["_target_"]) for node in nodes if isinstance(node, DictConfig) and "_target_" in node)


def own_places() -> list[str]:
    """Where a project of the user's has its modules: the current folder, and those that hold a `--config-dir`."""
    sources = HydraConfig.get().runtime.config_sources
    beside = [Path(s.path).absolute().parent for s in sources if s.schema == "file" and s.provider == "command-line"]
    return list(dict.fromkeys(map(str, (Path.cwd(), *beside))))


def _one_folder(arguments: Sequence[str]) -> None:
    """Ranks that torchrun or srun starts each compose a config: a folder named after the time differs between them.

    Raises:
        UserError: such a launcher started this process, and its command line names no folder.
    """
    ranks = "TORCHELASTIC_RUN_ID" in os.environ or not (MULTIRUN & set(arguments) or first_rank(os.environ))
    if ranks and not any(a.startswith("hydra.run.dir=") for a in arguments):
        raise UserError(
            "All ranks of torchrun, srun or their like must write into one folder: name it with hydra.run.dir=FOLDER."
        )


def hold_to_defaults(config: DictConfig) -> None:
    """Raise UserError for a key that is no truth value, whole number or mapping where the door's own file has one."""
    (main,) = [source for source in HydraConfig.get().runtime.config_sources if source.provider == "main"]
    file = Path(main.path) / f"{HydraConfig.get().job.config_name}.yaml"
    defaults = OmegaConf.load(file) if main.schema == "file" and file.is_file() else OmegaConf.create()
    for key, default in _leaves(OmegaConf.to_container(defaults)):
        value = OmegaConf.select(config, key, default=default)
        said = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if key == "scale" and said is None:  # a task that enlarges nothing has none
            continue
        if key != "hydra" and type(default) in (bool, int, dict) and not fits(said, type(default)):
            raise UserError(f"{key}={as_typed(said)} must be {wanted(type(default))}.")


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A door's own settings (`seed`, `data.patch_size`): two levels deep, below which nodes are anybody's."""
    for key, value in node.items():
        if isinstance(value, dict) and value and key != "hydra" and not prefix:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def hold_to_types(config: DictConfig, **more: Callable[..., Any]) -> dict[str, Any]:
    """The config as plain values, which are held to the types that whatever takes them asks for.

    That is what a node's `_target_` names, or one of `more`, for a node that names nothing.

    Raises:
        UserError: a value is of another type; the sentence has the key that sets it.
    """
    hold_to_defaults(config)
    plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    raw = cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))

    def hold(said: Any, values: dict[str, Any], key: str) -> None:
        made = more.get(key) or _located(values.get("_target_"))
        if made is not None:
            given = {name: value for name, value in values.items() if not name.startswith("_")}
            hold_to_signature(made, given, lambda name: _set_by(said.get(name), f"{key}.{name}"))
        for name, value in values.items():
            # what is interpolated is held at its place
            if isinstance(value, dict) and isinstance(said.get(name), dict):
                hold(said[name], value, f"{key}.{name}".lstrip("."))

    hold(raw, plain, "")
    return plain


def _located(target: object) -> Callable[..., Any] | None:
    """What a `_target_` names; None where that says nothing, which whoever makes it tells better."""
    with suppress(Exception):
        return cast(Callable[..., Any] | None, pydoc.locate(str(target))) if target else None
    return None


def _set_by(said: object, key: str) -> str:
    """The key that sets the value at `key`: another one, where its place in the config says `${that}`."""
    match = re.fullmatch(r"\$\{(\.*)([\w.]+)\}", str(said))
    if match is None:
        return key
    above = key.split(".")[: -len(match[1])] if match[1] else []
    return ".".join([*above, match[2]])


_hydras_package = ConfigDefault.get_package


def _package(entry: ConfigDefault, default_to_package_header: bool = True) -> str | None:
    """Where a file of a list of choices goes: those of a group that stands `APART` are not merged into one node."""
    package = _hydras_package(entry, default_to_package_header)
    group, _, name = (entry.path or "").partition("/")
    return f"{group}.{name}" if package is None and group in APART else package


@contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def description(text: str) -> str | None:
    """What a config file says of itself: its first comment that is no directive of Hydra's."""
    head = takewhile(lambda line: not line or line.startswith("#"), text.splitlines())
    return next((line.lstrip("# ").rstrip() for line in head if line and "@package" not in line), None)


def _config_groups(hydra: hydra_app.Hydra, predicate: Callable[[str], bool], **_: bool) -> str:
    """What `--help` says of the groups: a line a choice, with what its file, also in a `--config-dir`, says of itself.

    Those that lie in packages (Hydra's own) are listed by name, as Hydra does.
    """
    loader = cast(ConfigLoaderImpl, hydra.config_loader)
    folders = [Path(s.path) for s in loader.get_sources() if s.scheme() == "file"]
    lines = []
    for group in sorted(filter(predicate, _groups(loader.repository))):
        names = sorted(loader.repository.get_group_options(group))
        places = {name: [folder / group / f"{name}.yaml" for folder in folders] for name in names}
        files = {name: next(filter(Path.is_file, each), None) for name, each in places.items()}
        if not any(files.values()):
            lines.append(f"{group}: {', '.join(names)}")
            continue
        lines.append(f"{group}=")
        for name, file in files.items():
            said = None if file is None else description(file.read_text(encoding="utf-8"))
            lines.append(f"  {name:<{max(map(len, names))}}  {said or ''}".rstrip())
    return "".join(f"{line}\n" for line in lines)


def _groups(repository: IConfigRepository, parent: str = "") -> Iterator[str]:
    """All groups, straight from the repository: the loader, which Hydra asks, first copies every known config."""
    for name in repository.get_group_options(parent, ObjectType.GROUP):
        group = f"{parent}/{name}".lstrip("/")
        if repository.get_group_options(group):
            yield group
        yield from _groups(repository, group)
