"""Jobs that start at once: forked from a server that has imported torch, Lightning and wandb already.

The launcher talks to `upsweep.sweeps.forkserver` through a socket, a line of JSON for each message.
"""

import atexit
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL
from typing import Any

from upsweep.common.ranks import PARENT

OF_A_JOB = (PARENT, "MASTER_PORT", "CUDA_VISIBLE_DEVICES")  # variables that nothing reads while it is imported
SERVE = "import json, sys; sys.path[:0] = json.loads(sys.argv[2]); from upsweep.sweeps.forkserver import main; main()"


def can_fork() -> bool:
    """Whether a process may be forked safely after its imports: on Linux. Those of macOS do not survive it."""
    return sys.platform == "linux"


@dataclass(eq=False)
class Forked:
    """A process that the server has forked, for its launcher: as a `subprocess.Popen`."""

    server: "ForkServer"
    pid: int
    code: int | None = None

    @property
    def orphaned(self) -> bool:
        """Whether it ended with its server, so that nobody knows how."""
        return self.code is None and self.server.lost is not None

    def poll(self) -> int | None:
        """The exit code (negative: the signal that killed it), or None while it runs."""
        self.server.listen()
        return -SIGKILL if self.orphaned and not _alive(self.pid) else self.code


@dataclass(eq=False)
class ForkServer:
    """A server that forks jobs, started with the first of them. It ends when nobody holds its socket any more.

    Args:
        preload: modules to import before.
    """

    preload: Sequence[str]
    lost: str | None = None
    """Why there is none: it ended, or could not import; processes then start from nothing."""

    _process: subprocess.Popen[bytes] | None = None
    _ready: bool = False
    _environment: dict[str, str] = field(default_factory=dict, repr=False)  # may hold keys and passwords
    _children: dict[int, Forked] = field(default_factory=dict)  # the running ones
    _forked: list[Forked] = field(default_factory=list)  # not yet handed out
    _unread: bytes = b""

    def begin(self, environment: Mapping[str, str]) -> None:
        """Start to import, with the environment that the jobs will have; what differs between jobs does not matter."""
        if self._process is not None:
            return
        atexit.register(self.close)
        self._environment = _shared(environment)
        self._channel, theirs = socket.socketpair()
        path = json.dumps([entry or str(Path.cwd()) for entry in sys.path])
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(theirs.fileno()), path, *self.preload],
                env={**environment, PARENT: str(os.getpid())},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal is the launcher's to pass on
            )

    def settled(self) -> bool:
        """Whether it is known if there is a server: it has imported all, or could not."""
        self.listen()
        return self._ready or self.lost is not None

    def fork(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Forked | None:
        """Run a command (the interpreter, a script or `-m` a module, arguments) in a process of its own.

        What it prints goes to the end of `log`. None: there is no server, or not for this environment.
        """
        if self.lost is not None or _shared(environment) != self._environment:
            return None
        self._say(
            {"command": list(command), "environment": dict(environment), "log": str(log), "folder": str(Path.cwd())}
        )
        while not self._forked and self.lost is None:
            self.listen(patience=None)
        return self._forked.pop() if self._forked else None

    def close(self) -> None:
        """End the server; its jobs have ended before."""
        if self._process is not None:
            self._channel.close()
            with suppress(KeyboardInterrupt):  # one more Ctrl-C; the server ends by itself
                self._process.wait()

    def listen(self, patience: float | None = 0.0) -> None:
        """Hear what the server has said; wait for it so many seconds at most (None: for ever)."""
        while self._process is not None and self.lost is None and select.select([self._channel], [], [], patience)[0]:
            said = b""
            with suppress(ConnectionError):
                said = self._channel.recv(65_536)
            if not said:
                self.lost = self.lost or "it has ended"
                return
            *lines, self._unread = (self._unread + said).split(b"\n")
            for line in lines:
                self._hear(json.loads(line))
            patience = 0.0

    def _say(self, request: dict[str, Any]) -> None:
        try:
            self._channel.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            self.lost = str(error)

    def _hear(self, said: dict[str, Any]) -> None:
        match said:
            case {"forked": pid}:
                self._children[pid] = Forked(self, pid)
                self._forked.append(self._children[pid])
            case {"ended": pid, "code": code}:
                self._children.pop(pid).code = code
            case {"lost": why}:
                self.lost = why
                print(f"Every job imports for itself (hydra.launcher.preload): {why}.", file=sys.stderr, flush=True)
            case _:
                self._ready = True


def _shared(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in OF_A_JOB}


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
