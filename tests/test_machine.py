"""What this machine has, as far as a container lets a process use it."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from upsweep.common.machine import cores, free_memory, memory_of

NO_LIMIT = {"cpu.max": "max 100000\n", "memory.max": "max\n", "memory.current": "1000\n", "memory.stat": ""}


def group(folder: Path, **files: str) -> Path:
    for name, text in (NO_LIMIT | {name.replace("_", "."): text for name, text in files.items()}).items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity")
def test_cores_are_those_of_the_affinity_and_of_the_container(tmp_path: Path) -> None:
    mine = len(os.sched_getaffinity(0))
    assert cores(tmp_path / "none") == cores(group(tmp_path)) == mine
    assert cores(group(tmp_path, cpu_max="50000 100000\n")) == 1, "half a core is one job"
    assert cores(group(tmp_path, cpu_max=f"{100_000 * mine + 1} 100000\n")) == mine
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from upsweep.common.machine import *"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    said = subprocess.check_output([sys.executable, "-c", f"{code}; print(cores())"], env=env, text=True)
    assert int(said) == 1, "taskset"


def test_free_memory_is_what_the_container_leaves(tmp_path: Path) -> None:
    whole = psutil.virtual_memory().total
    assert 0 < free_memory(tmp_path / "none") <= whole
    stat = "anon 500000\ninactive_file 100000\n"
    held = group(tmp_path, memory_max="1000000\n", memory_current="700000\n", memory_stat=stat)
    assert free_memory(held) == 400_000, "files that lie in memory give way"
    assert free_memory(group(tmp_path, memory_max="600000\n", memory_current="700000\n", memory_stat=stat)) == 0


def test_the_memory_of_a_process_is_that_of_all_below_it() -> None:
    child = "b = bytearray(120_000_000); import sys; print(1, flush=True); sys.stdin.read()"
    code = f"import subprocess, sys; b = bytearray(60_000_000); subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        assert 180e6 < memory_of(process.pid) < 260e6
        process.stdin.close()
        process.wait()
        assert memory_of(process.pid) == 0
