"""Output streams that never raise: a closed pipe or a full disk does not stop a program."""

import io
import logging
import os
import sys
from functools import lru_cache
from typing import Any, TextIO

log = logging.getLogger("upsweep")


class Heard:
    """A text stream that still works when nobody reads it any more (`| head -1`, a full disk, a closed terminal).

    Characters that its encoding does not have are written as `\\xb1`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # the latter: it is closed
            self._mute()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._mute()

    def _mute(self) -> None:
        """From here on nothing is written anywhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, self._stream.fileno())
        except (OSError, ValueError):
            self._stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for as long as we run
        finally:
            os.close(nowhere)


@lru_cache(maxsize=64)
def warn_once(said: str) -> None:
    """Log a warning once a process: a folder is looked into to see what is there, and then to read it."""
    log.warning(said)


def never_raise() -> None:
    """Let standard output, standard error and logs never raise; a stream that was closed at the start discards all."""
    logging.raiseExceptions = False  # a log file on a full disk must not bury the sentence that says so
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
        setattr(sys, name, Heard(stream))
