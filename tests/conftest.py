"""What all tests share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# A runner started in the background of a shell ignores Ctrl-C, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Nor is a conf/local of yours that of the tests: this folder goes before conf/, here and in every process.
os.environ["UPSWEEP_CONF_FIRST"] = str(Path(__file__).resolve().parent / "conf")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where trainings keep their prepared images: one place for all tests, since preparing them takes a second."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For networks so small that threads would wait for each other longer than they work, on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
