"""A job's processes on one node of a Ray cluster, and its folder where the node does not see that of the launcher.

The launcher's files are found again below a folder of the node under their whole paths: `/home/me/code/src` is
`<home>/home/me/code/src`. Where the node sees the launcher's folders, that folder is "".
"""

import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from upsweep.common.files import PART, write_whole
from upsweep.common.parents import end_with_parent
from upsweep.runs.layout import JOB_LOG, LOCK
from upsweep.sweeps.processes import GRACE_SECONDS, clear_group, free_port, popen, signal_group
from upsweep.sweeps.processes import environment as inherited

SMALL = 1 << 20  # bytes up to which a file comes back as soon as it changes
AT_ONCE = 64 << 20  # bytes of files in one answer, or one file
TEXTS = (".json", ".yaml", ".csv", ".log")  # of a run: where they name a path, it becomes that of the launcher


@dataclass(frozen=True)
class Site:
    """Where a job runs: the node's name and address, a free port, the Python that Ray uses there.

    The launcher's code is found below `home`, its jobs and weights below `scratch`; both are "" where the node sees
    the launcher's own.
    """

    name: str
    address: str
    port: int
    python: str
    home: str = ""
    scratch: str = ""


@dataclass(frozen=True)
class News:
    """What has happened since the last look: the exit code, once there is one, and the files that have changed.

    `names` are those of all files, once the process has ended and all that has changed is told.
    """

    code: int | None
    files: Mapping[str, bytes] = field(default_factory=dict)
    names: frozenset[str] | None = None


class Node:
    """One node of a job; an actor of Ray. No call takes long.

    Args:
        marker: a file of the launcher: a node that sees it, and the `needed` ones, shares its folders.
        shared: whether the node does; None: look.
    """

    def __init__(self, marker: Path, needed: Sequence[Path], shared: bool | None) -> None:
        sees = all(path.exists() for path in (marker, *needed))
        self._apart = not (sees if shared is None else shared)
        self._scratch = tempfile.mkdtemp(prefix="job-", dir=Path.cwd()) if self._apart else ""  # Ray's own place
        self._folder = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._code: int | None = None
        self._sent: dict[str, tuple[int, int]] = {}
        self._large_at = time.monotonic()

    def site(self) -> Site:
        """Where this is."""
        from ray.util import get_node_ip_address

        home = str(Path.cwd()) if self._apart else ""
        return Site(platform.node(), get_node_ip_address(), free_port(()), sys.executable, home, self._scratch)

    def begin(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        directory: str,
        folder: str,
        files: Mapping[str, bytes],
    ) -> None:
        """Lay files, which have whole paths, and start the command in a directory; it writes into the folder."""
        for name, content in files.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(Path(name), content)
        self._folder = Path(folder)
        for place in (folder, directory):
            Path(place).mkdir(parents=True, exist_ok=True)
        self._sent = {name: stamp for name, _, stamp in changed(self._folder, {})} if self._apart else {}
        env = {**inherited((), None, 0), **environment}
        with (self._folder / JOB_LOG).open("ab") as log:
            self._process = popen(command, log, env, cwd=directory, start_new_session=True, preexec_fn=_as_job)

    def look(self, every: float, anew: bool = False) -> News:
        """What is new. Large files are told every so many seconds, and at the end; `anew`: all of them again."""
        if anew:
            self._sent.clear()
        ended = self._ended()
        if not self._apart:
            return News(self._code, names=frozenset() if ended else None)
        large = ended or time.monotonic() > self._large_at + every
        files, total, left = dict[str, bytes](), 0, False
        for name, size, stamp in changed(self._folder, self._sent):
            if size > SMALL and not large:
                continue
            if files and total + size > AT_ONCE:
                left = True
                break
            try:
                files[name] = self._told(name)
            except FileNotFoundError:  # it was replaced, or removed
                continue
            self._sent[name] = stamp
            total += size
        if large and not left:
            self._large_at = time.monotonic()
        names = frozenset(name for name, *_ in changed(self._folder, {})) if ended and not left else None
        return News(self._code if names is not None else None, files, names)

    def signal(self, signum: int) -> None:
        """Send a signal to the job."""
        if self._process is not None and self._code is None:
            signal_group(self._process.pid, signum)

    def clear(self) -> None:
        """End what is left of the job, and remove its folder, if the launcher has its own."""
        self.signal(signal.SIGKILL)
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _ended(self) -> bool:
        if self._process is not None and self._code is None and (code := self._process.poll()) is not None:
            clear_group(self._process.pid, GRACE_SECONDS if code == 0 else 0)
            self._code = code
        return self._code is not None

    def _told(self, name: str) -> bytes:
        content = (self._folder / name).read_bytes()
        if not name.endswith(TEXTS):
            return content
        for place in (self._scratch, str(Path.cwd())):  # the former is below the latter
            content = content.replace(place.encode(), b"")
        return content


def changed(folder: Path, told: Mapping[str, tuple[int, int]]) -> Iterator[tuple[str, int, tuple[int, int]]]:
    """The files below a folder that differ from what is told: name, size, and their time and size to tell.

    Small ones come first. Locks, links and files that are being written are none of them.
    """
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.name == LOCK or path.name.endswith(PART) or path.is_symlink():
            continue
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file() and told.get(name) != (stamp := (stat.st_mtime_ns, stat.st_size)):
            found.append((name, stat.st_size, stamp))
    return iter(sorted(found, key=lambda each: each[1]))


def _as_job() -> None:
    """Runs before the command: Ray's processes block signals, and a blocked one would stay so."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    end_with_parent()
