"""The server of `upsweep.sweeps.forking`: it imports once, then forks a process for every job.

A job sees what a fresh process would see: its environment, arguments, folder, signals, open files, threads and random
numbers. The server never runs what it has imported, so that no thread pool of torch and no CUDA is there to be forked;
the threads that NumPy's and SciPy's OpenBLAS start on import are stopped and begun anew by OpenBLAS itself at a fork.
"""

import atexit
import gc
import io
import json
import os
import runpy
import select
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from upsweep.common.errors import first_line
from upsweep.common.memory import keep_freed
from upsweep.common.parents import end_with_parent
from upsweep.common.ranks import PARENT

POLL_SECONDS = 0.02


def main() -> None:
    """Serve until the launcher hangs up; in a job's process, be the job. Takes a socket, a path and modules."""
    number, path, *modules = sys.argv[1:]
    put = len(json.loads(path)) + (not sys.flags.safe_path)  # by the launcher, and by -c
    own = sys.path[put:]
    channel = socket.socket(fileno=int(number))
    if (job := _serve(channel, modules)) is None:
        atexit._run_exitfuncs()  # temporary folders; a thread of a module's is not waited for
        os._exit(0)
    os._exit(_ended(lambda: _run(job["command"], own)))


def _serve(channel: socket.socket, modules: Sequence[str]) -> dict[str, Any] | None:
    """What the process that returns is to do: a job, or nothing more."""
    conversation = channel.makefile("rw", encoding="utf-8")

    def say(**what: Any) -> None:
        print(json.dumps(what), file=conversation, flush=True)

    reason = _imported(modules)
    with suppress(BrokenPipeError):  # the launcher has ended meanwhile
        say(lost=reason) if reason else say(ready=True)
    if reason:
        return None
    folders = [each for each in gc.get_objects() if type(each) is TemporaryDirectory]
    gc.freeze()
    children = list[int]()
    while True:
        for child in list(children):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                children.remove(child)
                say(ended=child, code=os.waitstatus_to_exitcode(status))
        if not select.select([channel], [], [], POLL_SECONDS if children else None)[0]:
            continue
        if not (line := conversation.readline()):
            return None
        job: dict[str, Any] = json.loads(line)
        begun, telling = os.pipe()
        if (child := os.fork()) == 0:
            os.close(begun)
            conversation.close()
            channel.close()
            _become(job, folders)
            os.close(telling)
            return job
        os.close(telling)
        os.read(begun, 1)  # until the child leads its group, and can be sent signals
        os.close(begun)
        children.append(child)
        say(forked=child)


def _imported(modules: Sequence[str]) -> str | None:
    """Import the modules; or say why what they have left cannot be forked."""
    keep_freed()
    gc.disable()
    for module in modules:
        try:
            import_module(module)
        except Exception as error:
            return f"{module}: {first_line(error)}"
    gc.enable()
    if threading.active_count() > 1:
        return f"{', '.join(modules)} started a thread"
    torch = sys.modules.get("torch")
    return "CUDA is in use" if torch is not None and torch.cuda.is_initialized() else None


def _become(job: dict[str, Any], folders: Sequence[TemporaryDirectory[str]]) -> None:
    """Make of a forked process what a fresh one would be, with temporary folders of its own for modules that have some.

    wandb makes two when it is imported, and the first job to end would remove them for all.
    """
    server = os.getppid()
    os.setsid()
    end_with_parent()
    log = os.open(job["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.environ.clear()
    os.environ.update(job["environment"] | {PARENT: str(server)})
    os.chdir(job["folder"])
    for folder in folders:
        folder._finalizer.detach()  # type: ignore[attr-defined]
        type(folder).__init__(folder)
    if (numpy := sys.modules.get("numpy")) is not None:  # random does so by itself
        numpy.random.seed()
    if (torch := sys.modules.get("torch")) is not None:
        torch.default_generator.seed()


def _ended(program: Callable[[], None]) -> int:
    """Run a program and do what the interpreter does at its end, but take down the modules: that takes 0.3 s."""
    code: object = 0
    try:
        program()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for each in gc.get_objects():  # of this job: those from before are frozen
        if issubclass(type(each), io.IOBase) and not each.closed:
            with suppress(OSError, ValueError):
                each.flush()
    return code & 0xFF


def _run(command: Sequence[str], path: Sequence[str]) -> None:
    """Run a script, or with `-m` a module, as the interpreter would."""
    sys.orig_argv[:] = command
    (kind, *rest) = command[1:]
    sys.argv[:] = command[2:] if kind == "-m" else command[1:]
    first = str(Path.cwd()) if kind == "-m" else str(Path(kind).resolve().parent)
    sys.path[:] = path if sys.flags.safe_path else [first, *path]
    if kind == "-m":
        sys.modules.pop(rest[0], None)  # of which runpy would warn
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(kind, run_name="__main__")
