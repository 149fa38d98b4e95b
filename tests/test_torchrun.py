"""Ranks that others start: torchrun on one machine, and two "machines" on loopback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from upsweep.runs.result import Result

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    *("trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=1", "callbacks.pictures=null"),
    *("data.patch_size=8", "data.batch_size=2", "data.patches_per_epoch=16", "generator.width=4", "generator.depth=1"),
]
RANKS = ["torch.distributed.run", "--nproc-per-node"]


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_ranks_of_torchrun_train_one_network_in_one_folder(tmp_path: Path, nodes: int) -> None:
    door = [str(ROOT / "src/train.py"), *TINY, "hydra.run.dir=run", f"trainer.num_nodes={nodes}"]
    where = [f"--nnodes={nodes}", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    devices = 2 // nodes
    processes = [
        started(tmp_path, *RANKS, str(devices), *where, f"--node-rank={rank}", *door, f"trainer.devices={devices}")
        for rank in range(nodes)
    ]
    said = "".join(process.communicate(timeout=200)[0] for process in processes)
    assert [process.returncode for process in processes] == [0] * nodes, said
    result = Result.read(tmp_path / "run")
    assert result is not None and result.state == "finished"
    assert f"4 patches a step (batch_size 2 x accumulated 1 x devices {devices} x nodes {nodes})" in said
    assert [path.name for path in tmp_path.iterdir() if path.name != ".cache"] == ["run"]
    assert len(list((tmp_path / "run" / "wandb").glob("offline-run-*"))) == 1


@pytest.mark.slow
def test_torchrun_without_a_folder_is_one_sentence(tmp_path: Path) -> None:
    process = started(tmp_path, *RANKS, "1", str(ROOT / "src/train.py"), *TINY)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "name it with hydra.run.dir=FOLDER" in said
    assert not (tmp_path / "outputs").exists()
