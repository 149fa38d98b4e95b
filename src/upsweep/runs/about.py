"""How a result was made: in a job's folder (`about.json`), and of a sweep in its manifest. Knows no torch."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from upsweep.common.commands import in_checkout
from upsweep.runs.layout import ABOUT
from upsweep.runs.record import checked, read, write_json

SOURCE = Path(__file__).resolve().parent
PACKAGES = ("upsweep", "torch", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy", "scikit-image", "wandb")


@dataclass(frozen=True, kw_only=True)
class About:
    """How a result was made. `commit` is None outside a checkout; `changed`: sources differed from the commit.

    `images` says how many are trained and validated on, once that is known.
    """

    command: list[str] = field(default_factory=list)
    directory: str = ""
    started: str = ""
    commit: str | None = None
    changed: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    images: str = ""

    @classmethod
    def now(cls, config: Mapping[str, Any] | None = None, images: str = "") -> "About":
        """Look around: about 30 ms, most of it git's."""
        commit = _git("rev-parse", "HEAD") if in_checkout() else None
        return cls(
            command=[sys.executable, *sys.argv],
            directory=str(Path.cwd()),
            started=time.strftime("%Y-%m-%d %H:%M:%S %z"),
            commit=commit,
            changed=bool(commit and _git("status", "--porcelain", "--untracked-files=no")),
            versions=_versions(),
            machine=_machine(),
            config=dict(config or {}),
            images=images,
        )

    def write(self, folder: Path) -> Path:
        """Write `about.json` into `folder`, whole or not at all."""
        return write_json(folder / ABOUT, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "About | None":
        """Read `about.json` in `folder`; None where there is none. Raises UnreadableError."""
        return read(lambda path: checked(cls(**json.loads(path.read_text(encoding="utf-8")))), folder / ABOUT)


def without_repeats(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without nodes that only repeat others: the recipe, and how a task is fed."""
    shown = {key: value for key, value in config.items() if key != "recipe"}
    for key, repeat in (("generator", "recipe"), ("task", "data")):
        if isinstance(node := shown.get(key), dict):
            shown[key] = {name: value for name, value in node.items() if name != repeat}
    return shown


def _git(*arguments: str) -> str | None:
    """What git says of the repository of our sources; None if it does not know."""
    command = ["git", "-C", str(SOURCE), *arguments]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return None


def _versions() -> dict[str, str]:
    """Python's and the packages' versions, without importing them."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _machine() -> dict[str, str]:
    """The kind of machine, without its name."""
    found = {"system": platform.platform(), "processor": _processor(), "cores": str(os.cpu_count())}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    return found


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
