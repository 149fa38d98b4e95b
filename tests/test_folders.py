"""A folder for one run at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from upsweep.common.errors import UserError
from upsweep.common.ranks import first_rank
from upsweep.runs.folders import to_go_on_from, writable
from upsweep.runs.layout import BEST, FRESH, HISTORY, LAST, PREVIOUS
from upsweep.runs.result import Result, State

SOURCES = Path(__file__).resolve().parent.parent / "src"
HOLD = """
import sys
from pathlib import Path
from upsweep.runs.folders import writable
writable(Path(sys.argv[1]), resume=True)
print("mine", flush=True)
sys.stdin.read()
"""


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"output folder .* cannot be made"):
        writable(tmp_path / "file" / "run")


def result(state: State) -> Result:
    return Result(state=state, choices={}, overrides=[], seed=1, scale=2)


@pytest.mark.parametrize("left", [BEST, LAST, FRESH, PREVIOUS, None], ids=str)
def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path: Path, left: Path | None) -> None:
    result("failed").write(tmp_path)
    assert writable(tmp_path) == tmp_path, "nothing of it would be lost"
    if left is None:  # a run that saves no weights
        result("finished").write(tmp_path)
    else:
        (tmp_path / left).parent.mkdir()
        (tmp_path / left).touch()
    with pytest.raises(UserError, match="already has a run: continue it with resume="):
        writable(tmp_path)
    assert writable(tmp_path, resume=True) == tmp_path


def test_a_folder_is_one_process_s_until_that_ends_however_it_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"],
        env={"PYTHONPATH": str(SOURCES)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "mine\n"
        with pytest.raises(UserError, match=f"process {other.pid} of .* is writing to"):
            writable(tmp_path / "run", resume=True)
        other.kill()
        other.wait()
    assert writable(tmp_path / "run") == writable(tmp_path / "run"), "the same process may ask twice"


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),
        ({"RANK": "2", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, False),
        ({"SLURM_PROCID": "3"}, False),
        ({"OMPI_COMM_WORLD_RANK": "1"}, False),
    ],
)
def test_only_the_first_rank_claims(environment: dict[str, str], first: bool) -> None:
    assert first_rank(environment) is first


def test_what_a_killed_process_left_beside_files_is_swept_away_when_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in (".result.json.77-0.part", "checkpoints/.best.ckpt.77-12.part", "checkpoints/best.ckpt"):
        (tmp_path / name).touch()
    writable(tmp_path, resume=True)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".lock", "best.ckpt"]


def test_a_job_without_last_checkpoints_goes_on_from_its_best_though_a_sweep_has_removed_its_result(
    tmp_path: Path,
) -> None:
    (tmp_path / BEST).parent.mkdir()
    (tmp_path / BEST).touch()
    assert to_go_on_from(tmp_path) == [], "killed before its first epoch had ended"
    (tmp_path / HISTORY).touch()
    assert to_go_on_from(tmp_path) == [tmp_path / BEST]
