"""The frame of every door: Hydra's main, with one clear sentence where the person at the keyboard erred.

Imports nothing heavy: `--help` and `--cfg job` must answer at once.
"""

import functools
import gc
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal import hydra as hydra_app
from hydra._internal import utils as hydra_utils
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.utils import run_job as hydras_run_job
from hydra.errors import CompactHydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from upsweep.errors import UserError
from upsweep.memory import keep_freed
from upsweep.sweeps.folders import first_rank, writable
from upsweep.sweeps.results import REQUEUE
from upsweep.sweeps.resuming import MULTIRUN, resumed

Task = Callable[[DictConfig], float | None]

# The groups whose choices become part of a generator.
NAMING_GROUPS = ("generator", "init", "activation", "norm", "dropout", "upsampler")


def door(
    config_name: str, config_path: str = "../conf", paths: Sequence[str] = (), claims: bool = False
) -> Callable[[Task], Callable[[], None]]:
    """Make a task function the entry point of a script whose config is `config_path/config_name.yaml`.

    `paths` are keys whose values are file names, taken as they are typed: `input=photo (1).jpg` is no syntax error.
    With `claims` the output folder becomes this process's alone before Hydra writes into it (`folders.writable`), and
    SIGTERM ends it with the code by which a scheduler runs it again.

        @door("train")
        def main(config: DictConfig) -> float | None: ...

    A UserError is printed as its sentence, with exit code 1 and no traceback, and so are an unknown key or
    name (with those that exist) and an output folder that cannot be written. HYDRA_FULL_ERROR=1, and for what
    the task raises also any `debug` choice, brings the traceback back.
    """

    def decorate(task: Task) -> Callable[[], None]:
        in_task = False

        @functools.wraps(task)
        def civil(config: DictConfig) -> float | None:
            nonlocal in_task
            in_task = True
            try:
                return task(config)
            except Exception as error:
                user_error = next((link for link in _chain(error) if isinstance(link, UserError)), None)
                debugging = HydraConfig.get().runtime.choices.get("debug") is not None
                if user_error is None or debugging or _full_error():
                    raise
                _give_up(user_error)

        entry = hydra.main(version_base="1.3", config_path=config_path, config_name=config_name)(civil)
        hydras_report = hydra_utils.run_and_report

        def report(func: Any) -> Any:
            """Hydra's way to run and to print what went wrong, unless we have a sentence for it."""

            def attempt() -> Any:
                try:
                    return func()
                except Exception as error:
                    if not in_task and not _full_error() and (sentence := _sentence(error)) is not None:
                        _give_up(sentence)
                    raise

            return hydras_report(attempt)

        def run_job(*, config: DictConfig, **others: Any) -> Any:
            if claims:
                writable(Path(str(config.hydra.run.dir)), resume=config.get("resume") is not None)
            return hydras_run_job(config=config, **others)

        @functools.wraps(task)
        def run() -> None:
            # How long an idle OpenMP thread spins; torch reads it on import. libgomp's own 300,000 made a training step
            # 4 to 10 times slower beside one busy core, none at all 1.5 to 3 times slower on two idle ones.
            if "OMP_WAIT_POLICY" not in os.environ:
                os.environ.setdefault("GOMP_SPINCOUNT", "4000")
            keep_freed()
            with (
                _replaced(hydra_utils, "run_and_report", report),
                _replaced(hydra_app, "run_job", run_job),
                _replaced(ConfigLoaderImpl, "get_group_options", _group_options),
                _replaced(Hydra, "format_config_groups", _config_groups),
            ):
                try:
                    if claims and threading.current_thread() is threading.main_thread():
                        signal.signal(signal.SIGTERM, lambda *_: sys.exit(REQUEUE))
                    sys.argv[1:] = [_quoted(argument, paths) for argument in resumed(sys.argv[1:])]
                    _one_folder(sys.argv[1:])
                    entry()
                except BrokenPipeError:  # `--help | head`: nobody reads on
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                    sys.exit(1)
                except (CompactHydraException, UserError) as error:  # --help and --info do not pass through the report
                    if _full_error():
                        raise
                    _give_up(_sentence(error) or error)

        return run

    return decorate


@contextmanager
def importing() -> Iterator[None]:
    """Import heavy modules without garbage collection, and leave what they made out of every later one.

    A quarter of the time that torch and Lightning take to import is spent on looking for garbage that is not there.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def own_targets(groups: Sequence[str] = NAMING_GROUPS) -> frozenset[str]:
    """Every class that the config folders in use name in `groups`: those that a checkpoint may name too.

    The folders are conf/ and whatever `--config-dir` adds, all of them the user's. Call it in a task.
    """
    folders = [Path(source.path) for source in HydraConfig.get().runtime.config_sources if source.schema == "file"]
    files = (file for folder in folders for group in groups for file in sorted((folder / group).glob("*.yaml")))
    nodes = (OmegaConf.load(file) for file in files)
    return frozenset(str(node["_target_"]) for node in nodes if isinstance(node, DictConfig) and "_target_" in node)


def _quoted(argument: str, keys: Sequence[str]) -> str:
    """An override of one of `keys` with its value quoted for Hydra's grammar, which knows few characters."""
    key, equals, value = argument.partition("=")
    if key not in keys or not equals or value in ("", "null") or value[0] in "'\"[":
        return argument
    escaped = re.sub(r"(\\*)'", r"\1\1\'", value)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"{key}='{escaped}{escaped[len(escaped) - trailing :]}'"


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


@contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


_hydras_group_options = ConfigLoaderImpl.get_group_options


def _group_options(
    loader: ConfigLoaderImpl,
    group_name: str,
    results_filter: ObjectType | None = ObjectType.CONFIG,
    config_name: str | None = None,
    overrides: list[str] | None = None,
) -> list[str]:
    """What Hydra's own gives, without its deep copy of every known config: `--help` asks for every group."""
    if config_name is not None or overrides:
        return _hydras_group_options(loader, group_name, results_filter, config_name, overrides)
    return loader.repository.get_group_options(group_name, results_filter)


def headline(text: str) -> str | None:
    """What a config file says of itself: its first comment that is no directive of Hydra's."""
    for line in text.splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").rstrip()
        if line and not line.startswith("#"):
            break
    return None


def _config_groups(hydra: Hydra, predicate: Callable[[str], bool], **_: bool) -> str:
    """What `--help` says of the groups: a line a choice, with what its file says of itself.

    The groups of a folder that `--config-dir` names are among them; those that lie in packages (Hydra's own) are
    listed by name, as Hydra does.
    """
    folders = [Path(s.path) for s in hydra.config_loader.get_sources() if s.scheme() == "file"]
    lines = []
    for group in sorted(filter(predicate, hydra.list_all_config_groups())):
        names = sorted(hydra.config_loader.get_group_options(group))
        files = [[f for folder in folders if (f := folder / group / f"{name}.yaml").is_file()] for name in names]
        if not any(files):
            lines.append(f"{group}: {', '.join(names)}")
            continue
        width = max(map(len, names))
        lines.append(f"{group}=")
        for name, found in zip(names, files, strict=True):
            said = headline(found[0].read_text(encoding="utf-8")) if found else None
            lines.append(f"  {name:<{width}}  {said or ''}".rstrip())
    return "".join(f"{line}\n" for line in lines)


def _give_up(message: object) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(1)


def _full_error() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes: `hydra.utils.instantiate` wraps what a constructor raises."""
    while error is not None:
        yield error
        error = error.__cause__


def _sentence(error: Exception) -> str | None:
    """What to tell a user of an error outside the task; None where Hydra's own words are best."""
    for link in _chain(error):
        if isinstance(link, UserError):
            return str(link)
        if isinstance(link, (ConfigKeyError, ConfigAttributeError)) and isinstance(link.parent_node, DictConfig):
            key = str(link.key)
            return _unknown(str(link.full_key).removesuffix(key), key, sorted(map(str, link.parent_node)))
        if isinstance(link, MissingConfigException):
            group, _, name = (link.missing_cfg_file or "").rpartition("/")
            # Hydra gives no options where one of several names ('degradation=[blur,...]') is unknown.
            options = link.options or GlobalHydra.instance().config_loader().get_group_options(group)
            return _unknown(f"{group}=", name, sorted(options)) if options else None
        if isinstance(link, OSError):
            return (
                f"Cannot use {link.filename}: {link.strerror}. "
                "Another output folder is chosen with hydra.run.dir=... or, for a sweep, hydra.sweep.dir=..."
            )
    return None


def _unknown(prefix: str, word: str, known: list[str]) -> str:
    meant = "".join(f" Did you mean {prefix}{match}?" for match in get_close_matches(word, known, n=1))
    return f"There is no {prefix}{word}; choose from {', '.join(known)}.{meant}"
