"""Processes that end with the one that started them, whatever they wait for."""

import ctypes
import os
import signal
import sys
import threading
import time

from upsweep.common.ranks import PARENT, first_rank

GRACE = 10.0  # seconds that a job has for its last words


def end_with_parent(signum: signal.Signals = signal.SIGTERM) -> None:
    """Ask Linux to send this process a signal when its parent dies."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signum)


def watch_parent() -> None:
    """End this process soon after the one of ours that started it: a rank at once, a job after `GRACE`.

    A signal alone does not do: Python sees none while it waits in C for ranks that will never come.
    """
    said, parent = os.environ.get(PARENT), os.getppid()
    os.environ[PARENT] = str(os.getpid())
    if said is None or not said.isdigit():
        return
    rank = not first_rank(os.environ)
    if int(said) != parent:
        if rank and not _alive(int(said)):
            sys.exit(f"process {said}, which started this rank, has ended.")
        return  # a shell, or a scheduler, stands between them
    if rank:
        end_with_parent(signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        time.sleep(0.0 if rank else GRACE)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
