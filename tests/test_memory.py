"""Memory that a process frees stays its own, so that the next step need not have it cleared again."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
from upsweep.common.memory import keep_freed

def step() -> None:
    kept = [np.ones(2 << 20, np.uint8) for _ in range(10)]  # 2 MiB each, 5,120 pages in all

print(keep_freed() if {keep} else False)
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool, **variables: str) -> tuple[str, int]:
    """What `keep_freed` said, and how many pages the system had to clear in 20 steps."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FAULTS.format(keep=keep)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**env, **variables})
    said, count = done.stdout.split()
    return said, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the habit is glibc's")
def test_what_is_freed_is_kept() -> None:
    assert faults(keep=False)[1] > 1000
    said, count = faults(keep=True)
    assert said == "True" and count < 100


@pytest.mark.parametrize("own", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.top_pad=4096"}])
def test_what_the_user_says_of_malloc_goes_first(own: dict[str, str]) -> None:
    assert faults(keep=True, **own)[0] == "False"


def test_other_settings_of_malloc_are_no_answer_to_it() -> None:
    assert faults(keep=True, MALLOC_ARENA_MAX="2")[0] == str(platform.libc_ver()[0] == "glibc")
