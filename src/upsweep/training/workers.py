"""Data workers: what fails in one ends the training, with a sentence that names the cause."""

import multiprocessing.queues
import os
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from upsweep.common.errors import first_line

SHARED = Path("/dev/shm")
ADVICE = "use fewer workers or smaller batches, or none of them (data.num_workers=0)"


class Workers:
    """From here on a worker that cannot hand over a batch ends, instead of leaving the training to wait for ever.

    Python's queues print what fails in the thread that feeds them, and lose the item. What it was is told through a
    pipe, which workers inherit; the loader sees within five seconds that a worker has gone.
    """

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        training, telling = os.getpid(), self._writing

        queue: Any = multiprocessing.queues.Queue
        before = queue._on_queue_feeder_error

        def end(error: BaseException, item: Any) -> Any:
            if os.getpid() == training:
                return before(error, item)
            os.write(telling, first_line(error).encode()[:1000])
            os._exit(1)

        queue._on_queue_feeder_error = staticmethod(end)

    def why(self, error: BaseException) -> str | None:
        """What to tell of an error that comes of a worker; None of any other."""
        said = str(error)
        if "in DataLoader worker process" in said:  # an exception that the loader raises again
            last = said.strip().splitlines()[-1]
            return re.sub(r"^[\w.]*UserError: ", "", last) if "UserError" in last else None
        if "DataLoader worker (pid" not in said:
            return None
        try:
            cause = os.read(self._reading, 1000).decode(errors="replace")
        except BlockingIOError:  # it was killed
            cause = first_line(error)
        if "shared memory" not in cause and "Bus error" not in said:
            return f"A data worker ended ({cause}): {ADVICE}."
        megabytes = [f"{size >> 20} MB" for size in shutil.disk_usage(SHARED)[::2]] if SHARED.is_dir() else ["?", "?"]
        return (
            f"Shared memory is too small ({SHARED} has {megabytes[0]}, {megabytes[1]} of them free): data workers hand "
            f"over their batches through it; {ADVICE}, or make it larger (docker run --shm-size=1g)."
        )


workers = cache(Workers)  # one for all trainings of a process
