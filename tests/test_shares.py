"""How a machine is shared out among the jobs of a sweep."""

import pytest
from omegaconf import OmegaConf

from upsweep.common.errors import UserError
from upsweep.sweeps.shares import AUTO, shares

CPU = {"trainer": {"accelerator": "cpu", "devices": 1, "num_nodes": 1}}


def of(most, parallel=AUTO, per_job=None, **trainer):
    config = OmegaConf.create(CPU | {"trainer": CPU["trainer"] | trainer})
    return shares([config], most, parallel, per_job)


@pytest.fixture
def machine(monkeypatch):
    """A machine of 8 cores, with as much memory and as many devices as a test says."""

    def has(devices="", memory=64e9, cores=8):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr("upsweep.sweeps.shares.cores", lambda: cores)
        monkeypatch.setattr("upsweep.sweeps.shares.free_memory", lambda: memory)

    has()
    return has


def test_a_number_means_that_number(machine):
    assert of(3, 2) == of(30, 2) and len(of(30, 2).devices) == 2
    assert (of(3, 20).threads, of(3, 2).threads, of(3, 1).threads) == (2, 4, None), "of jobs that there are"
    assert of(3, 2).sentence is None, "what was asked for is not told"


def test_a_number_changes_how_many_jobs_run_and_not_where(machine):
    machine("0,1,2,3")
    one_each = (("0",), ("1",), ("2",), ("3",))
    assert of(9, 4, accelerator="gpu").devices == one_each == of(9, accelerator="gpu").devices
    assert of(9, 2, accelerator="auto").devices == one_each[:2]
    assert of(9, 2, accelerator="gpu", devices=2).devices == (("0", "1"), ("2", "3"))
    assert of(9, 2, accelerator="gpu", devices=2).threads == 2, "8 cores, 4 ranks"
    assert of(9, 4, accelerator="gpu").sentence == (
        "4 jobs at a time, with 2 threads each: each has 1 of 4 CUDA devices (hydra.launcher.parallel=4)."
    )
    assert of(9, 6, accelerator="gpu").devices == (*one_each, *one_each[:2]), "they go round"
    assert "1 of 4 CUDA devices, which up to 2 jobs share (hydra." in str(of(9, 6, accelerator="gpu").sentence)
    assert of(9, 5, 1, accelerator="gpu").devices == one_each, "unless each is to have devices of its own"
    for everything in ({"devices": -1}, {"devices": 5}, {"num_nodes": 2}, {"accelerator": "cpu"}):
        given = of(9, 5, **{"accelerator": "gpu"} | everything)
        assert given.devices == ((),) * 5 and given.sentence is None


def test_devices_are_dealt_out_once(machine):
    machine("3, 5,GPU-7")
    assert of(9, 8, 1).devices == (("3",), ("5",), ("GPU-7",))
    assert of(9, 2, 1).devices == (("3",), ("5",))
    assert of(9, 8, 2).devices == (("3", "5"),)
    assert of(9, 2).devices == ((), ())
    with pytest.raises(UserError, match="3 CUDA devices are visible"):
        of(9, 1, 4)
    machine("-1")
    assert of(9, 3, 1).devices == ((), (), ())


@pytest.mark.parametrize("count", [0, -3])
def test_a_share_of_no_device_is_refused_also_where_there_are_none(machine, count):
    with pytest.raises(UserError, match=f"devices_per_job={count}"):
        of(1, 1, count)


@pytest.mark.parametrize("parallel", [0, -1, "many", 1.5, True, None])
def test_what_is_no_number_of_jobs_is_refused(machine, parallel):
    with pytest.raises(UserError, match=f"hydra.launcher.parallel={parallel} must be auto, or a whole number"):
        of(1, parallel)


def test_auto_gives_a_core_to_every_thread(machine, monkeypatch):
    assert (len(of(30).devices), of(30).threads) == (8, 1)
    assert (len(of(3).devices), of(3).threads) == (3, 2), "few jobs share all cores"
    assert (len(of(1).devices), of(1).threads) == (1, None), "one has them all"
    assert (len(of(30, devices=3).devices), of(30, devices=3).threads) == (2, 1), "a rank is a process"
    assert of(30).sentence == (
        "8 jobs at a time, with 1 thread each: 8 cores, 64 GB of free memory (hydra.launcher.parallel=auto)."
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert len(of(30).devices) == 2, "as many threads as the user wants"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "3 jobs at a time, with 1 thread each" in str(of(3).sentence), "a job keeps what the user has set"
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert len(of(30).devices) == 2, "a number for each level of OpenMP"


@pytest.mark.parametrize("threads", ["many", "0", "-2", "1.5"])
def test_what_is_no_number_of_threads_is_refused(machine, monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    with pytest.raises(UserError, match=f"OMP_NUM_THREADS={threads} is no number of threads"):
        of(30)


def test_auto_takes_no_more_than_memory_allows(machine):
    machine(memory=6.5e9)
    assert (len(of(30).devices), of(30).threads) == (3, 2)
    machine(memory=0.3e9)
    assert len(of(30).devices) == 1


def test_auto_gives_every_job_the_devices_that_its_trainer_asks_for(machine):
    machine("0,1,2,3")
    assert of(30, accelerator="gpu").devices == (("0",), ("1",), ("2",), ("3",))
    assert of(2, accelerator="auto").devices == (("0",), ("1",))
    assert of(30, accelerator="gpu", devices=2).devices == (("0", "1"), ("2", "3"))
    assert "each has 2 of 4 CUDA devices" in str(of(30, accelerator="cuda", devices=2).sentence)
    assert of(30, accelerator="gpu", devices=2).threads == 2, "8 cores, 4 ranks"
    assert of(30, None or AUTO, 1, accelerator="gpu").devices == (("0",), ("1",), ("2",), ("3",))
    for everything in (
        {"devices": -1},
        {"devices": "auto"},
        {"devices": [0, 1]},
        {"num_nodes": 2},
        {"accelerator": "mps"},
    ):
        assert of(30, **{"accelerator": "gpu"} | everything).devices == ((),), "one after the other"
    assert len(of(30).devices) == 8, "a trainer on the CPU needs no device"
    two = [OmegaConf.create({"trainer": {"accelerator": "gpu", "devices": n}}) for n in (1, 3)]
    assert shares(two, 30, AUTO, None).devices == (("0", "1", "2"),), "the largest job decides"
