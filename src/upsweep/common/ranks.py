"""What the environment says of ranks: the processes of one training."""

import os
from collections.abc import Mapping

# By which a launcher of ranks (Lightning, torchrun, srun, mpirun, LSF) tells a process which one it is.
_OWN = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "JSM_NAMESPACE_RANK")
# What an outer distributed run, or a Lightning run before in this process, leaves in the environment.
_LEFT = {
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GLOBAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT", "STANDALONE_PORT", "PL_GLOBAL_SEED", "PL_SEED_WORKERS"),
}


def first_rank(environment: Mapping[str, str]) -> bool:
    """Whether this process is the first rank; it is where no launcher of ranks says otherwise."""
    return all(environment.get(name, "0") == "0" for name in _OWN)


def clean_environment() -> dict[str, str]:
    """This process's environment without any trace of a rank."""
    gone = _LEFT | {name for name in os.environ if name.startswith("TORCHELASTIC_")}
    kept = {name: value for name, value in os.environ.items() if name not in gone}
    return kept | {"PYTHONUNBUFFERED": "1"}  # the last lines of a job that is killed are in its log
