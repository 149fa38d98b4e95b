"""What all tests share."""

import signal
from collections.abc import Iterator

import pytest

# A runner started in the background of a shell ignores Ctrl-C, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For networks so small that threads would wait for each other longer than they work, on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
