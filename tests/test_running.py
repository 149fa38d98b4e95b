"""The loop that runs the jobs of every sweep, and what a machine tells it."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from upsweep.runs.progress import Progress
from upsweep.sweeps.jobs import STOPPED, Planned
from upsweep.sweeps.processes import Processes
from upsweep.sweeps.running import Ended, run_jobs
from upsweep.sweeps.shares import Shares


def job(folder: Path, name: str, command: Sequence[str] = ()) -> Planned:
    config: DictConfig = OmegaConf.create({"hydra": {"runtime": {"choices": {}}, "job": {"env_set": {}}}})
    return Planned(name, folder / name, 0, [], config, command)


class Clockwork:
    """A machine on which a job takes as many rounds as its name says."""

    poll_seconds, parallel = 0.0, 2
    decided: str | None = None

    def __init__(
        self, interrupted_in: int | None = None, times: int = 1, signum: signal.Signals = signal.SIGTERM
    ) -> None:
        self.now, self.running, self.log = 0, dict[Planned, int](), list[str]()
        self.interrupted_in, self.times, self.signum = interrupted_in, times, signum

    def room(self) -> int:
        return self.parallel - len(self.running)

    def start(self, jobs: Sequence[Planned]) -> None:
        assert len(jobs) <= self.room()
        self.running |= {job: self.now + int(job.name) for job in jobs}
        self.log += [f"{self.now}: {job.name}" for job in jobs]

    def ended(self) -> Iterator[Ended]:
        self.now += 1
        for each in [job for job, end in self.running.items() if end <= self.now]:
            del self.running[each]
            yield Ended(each, 1)
        if self.now == self.interrupted_in:
            for _ in range(self.times):
                os.kill(os.getpid(), self.signum)

    def stop(self, signum: signal.Signals, *, at_once: bool) -> None:
        self.log.append(f"{self.now}: {signum.name}{' at once' if at_once else ''}")

    def close(self) -> None:
        self.log.append(f"{self.now}: closed")


def run(machine: Clockwork, jobs: Sequence[Planned]) -> tuple[signal.Signals | None, list[str]]:
    waiting, told = list(jobs), list[str]()

    def ask(room: int) -> list[Planned]:
        given, waiting[:] = waiting[:room], waiting[room:]
        return given

    stopped = run_jobs(machine, ask, lambda each: told.append(each.name), lambda: None)
    return stopped, told


def test_a_job_starts_as_soon_as_another_one_has_ended(tmp_path: Path) -> None:
    machine = Clockwork()
    stopped, told = run(machine, [job(tmp_path, name) for name in ("9", "2", "3", "1")])
    assert stopped is None and told == ["2", "3", "1", "9"]
    assert machine.log == ["1: 9", "1: 2", "3: 3", "6: 1", "10: closed"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_is_passed_on_and_no_further_job_starts(tmp_path: Path, times: int) -> None:
    machine = Clockwork(interrupted_in=2, times=times)
    jobs = [job(tmp_path, name) for name in ("4", "5", "6")]
    before = signal.getsignal(signal.SIGTERM)
    stopped, told = run(machine, jobs)
    assert (stopped, told) == (signal.SIGTERM, ["4", "5"])
    assert machine.log == ["1: 4", "1: 5", f"2: SIGTERM{' at once' if times > 1 else ''}", "6: closed"]
    assert [each.status.state for each in jobs] == ["stopped", "stopped", "waiting"]
    assert jobs[0].status.result is not None and jobs[0].status.result.reason == STOPPED
    assert signal.getsignal(signal.SIGTERM) is before


def test_jobs_save_when_the_terminal_is_closed(tmp_path: Path) -> None:
    machine = Clockwork(interrupted_in=2, signum=signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it, also for these tests
    stopped, _ = run(machine, [job(tmp_path, "4")])
    signal.signal(signal.SIGHUP, before)
    assert stopped is signal.SIGHUP and "2: SIGTERM" in machine.log, "a training does not save at SIGHUP"


def test_a_machine_is_closed_whatever_happens(tmp_path: Path) -> None:
    machine = Clockwork()
    with pytest.raises(ZeroDivisionError):
        run_jobs(machine, lambda room: [] * (room // 0), lambda _: None, lambda: None)
    assert machine.log == ["1: closed"]


@pytest.mark.parametrize(("free", "fits"), [(100e9, 3), (3.5e9, 1), (0.1e9, 0)])
def test_with_auto_no_more_jobs_start_than_there_is_memory_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], free: float, fits: int
) -> None:
    held = {"memory": 0}
    monkeypatch.setattr("upsweep.sweeps.processes.memory_of", lambda _: held["memory"])
    monkeypatch.setattr("upsweep.sweeps.processes.free_memory", lambda: int(free))
    monkeypatch.setattr("upsweep.sweeps.processes.LOOK_SECONDS", 0.0)
    machine = Processes(Shares(((),) * 4, threads=1, why="so many cores"))
    first = job(tmp_path, "0", ["sleep", "60"])
    assert machine.room() == 4, "the first starts whatever there is"
    machine.start([first])
    try:
        held["memory"] = int(1.2e9)
        assert list(machine.ended()) == [] and machine.room() == min(3, max(0, int((free - 0.8e9) // 2e9)))
        Progress(epoch=1, epochs=9).write(first.folder)
        assert list(machine.ended()) == [], "it has been through an epoch, and holds 1.2 GB"
        assert machine.room() == min(3, int(free // 1.2e9)) >= fits
        assert ("there is no memory for 4 at a time" in capsys.readouterr().out) == (fits < 3)
    finally:
        machine.close()
