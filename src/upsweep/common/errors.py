"""The one exception whose message is meant for the person at the keyboard."""

import re
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Bad input from outside: one sentence that says what, where, and what to do.

    The doors (`src/*.py`) print it without a traceback and exit with code 1.
    """


def first_line(error: BaseException) -> str:
    """The first line of what an error says, for the end of a sentence."""
    if isinstance(error, SystemExit) and not isinstance(error.code, str):
        return f"it ends the process, with exit code {error.code or 0}"
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@contextmanager
def within_memory(sentence: str) -> Iterator[None]:
    """Raise UserError with the sentence where memory is too small, of this machine or of a GPU."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_memory(error):
            raise
        raise UserError(sentence) from error


def is_memory(error: BaseException) -> bool:
    """Whether memory was too small: PyTorch has no kind of error of its own for that on every device."""
    said = isinstance(error, RuntimeError) and re.search("out of memory|allocate memory", str(error), re.I)
    return isinstance(error, MemoryError) or bool(said)


@contextmanager
def extra(package: str, sentence: str) -> Iterator[None]:
    """Import modules that need an optional package; without it, raise UserError with the sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise UserError(sentence) from error
