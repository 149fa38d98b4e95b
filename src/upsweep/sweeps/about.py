"""How a result was made (`about.json`): command, commit, versions, machine, and the resolved config.

Every job writes one into its folder, a sweep has the same in its manifest. Knows no torch.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from upsweep.errors import UserError
from upsweep.sweeps.results import write_by_rename

SOURCE = Path(__file__).resolve().parent
PACKAGES = ("upsweep", "torch", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy", "scikit-image", "wandb")


@dataclass(frozen=True, kw_only=True)
class About:
    """How a result was made. `commit` is None outside a repository; `changed`: sources differed from the commit."""

    command: list[str]
    directory: str
    started: str
    commit: str | None
    changed: bool
    versions: dict[str, str]
    machine: dict[str, str]
    config: dict[str, Any] = field(default_factory=dict)

    FILE = "about.json"

    @classmethod
    def now(cls, config: Mapping[str, Any] | None = None) -> "About":
        """Look around: about 30 ms, most of it git's."""
        commit = _git("rev-parse", "HEAD")
        return cls(
            command=[sys.executable, *sys.argv],
            directory=str(Path.cwd()),
            started=time.strftime("%Y-%m-%d %H:%M:%S %z"),
            commit=commit,
            changed=bool(commit and _git("status", "--porcelain", "--untracked-files=no")),
            versions=_versions(),
            machine=_machine(),
            config=dict(config or {}),
        )

    def plain(self) -> dict[str, Any]:
        """Values for JSON."""
        return asdict(self)

    def write(self, folder: Path) -> Path:
        """Write `about.json` into `folder` by rename."""
        return write_by_rename(folder / self.FILE, json.dumps(self.plain(), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "About | None":
        """Read `about.json` in `folder`; None where there is none. Raises UserError if unreadable."""
        path = folder / cls.FILE
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} cannot be read ({error}): delete it, or run its job again.") from error


def _git(*arguments: str) -> str | None:
    """What git says of the repository in which our sources lie; None where it does not know."""
    try:
        said = subprocess.run(["git", "-C", SOURCE, *arguments], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() if said.returncode == 0 else None


def _versions() -> dict[str, str]:
    """Python's and the packages' versions, without importing them."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, str]:
    """The kind of machine, by nothing that names it."""
    found = {"system": platform.platform(), "processor": _processor(), "cores": str(os.cpu_count())}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
