"""Environment variables about ranks, the processes of one training."""

import os
from collections.abc import Mapping, MutableMapping

from upsweep.common.errors import UserError

# With these a launcher of ranks (Lightning, torchrun, srun, mpirun, LSF) tells a process its rank.
_OWN = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "JSM_NAMESPACE_RANK")
PARENT = "UPSWEEP_PARENT"  # which of our processes on this machine started this one, see `upsweep.common.parents`
# What an outer distributed run, or a Lightning run before in this process, leaves in the environment.
_LEFT = {
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GLOBAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT", "STANDALONE_PORT", "PL_GLOBAL_SEED", "PL_SEED_WORKERS"),
}


def first_rank(environment: Mapping[str, str]) -> bool:
    """Whether this process is the first rank; without a launcher of ranks it is."""
    return all((environment.get(name) or "0") == "0" for name in _OWN)


def settle_ranks(environment: MutableMapping[str, str]) -> None:
    """Remove empty variables, and make a process in a SLURM allocation that srun did not start a single rank.

    There Lightning would wait for as many ranks as the allocation has tasks, unless the job's name is `interactive`.

    Raises:
        UserError: a rank, or their number, is not a whole number.
    """
    for name in (*_OWN, "SLURM_NTASKS", *(name for name in sorted(_LEFT) if name.endswith(("SIZE", "PORT")))):
        if not (value := environment.get(name, "")).strip():
            environment.pop(name, None)
        elif not value.isdecimal():
            raise UserError(f"{name}={value} in the environment is not a whole number: unset it if this is not a rank.")
    alone = "SLURM_PROCID" not in environment or environment.get("SLURM_STEP_NUM_TASKS") == "1"
    if "SLURM_NTASKS" in environment and alone:
        environment["SLURM_JOB_NAME"] = "interactive"


def clean_environment() -> dict[str, str]:
    """This process's environment without any trace of a rank, or of who started it."""
    gone = _LEFT | {PARENT} | {name for name in os.environ if name.startswith("TORCHELASTIC_")}
    kept = {name: value for name, value in os.environ.items() if name not in gone}
    return kept | {"PYTHONUNBUFFERED": "1"}  # the last lines of a job that is killed are in its log
