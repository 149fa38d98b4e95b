"""A model of a run, linked into a registry of W&B: what others are to use."""

from pathlib import Path

from upsweep.common.errors import UserError, first_line
from upsweep.runs.about import About
from upsweep.runs.layout import WANDB
from upsweep.tracking.artifacts import BEST, model_name
from upsweep.tracking.reopened import wandb_in
from upsweep.tracking.server import asking, no_way_online
from upsweep.tracking.weights import PREFIX


def promote(model: str, registry: str = "model", collection: str | None = None) -> tuple[str, str]:
    """Link a model into a collection of a registry; the names of its version here and there.

    Args:
        model: `[ENTITY/]PROJECT/NAME[:ALIAS]`, without an alias the best; or the folder of a run that was uploaded.
        registry: its name at W&B.
        collection: made if it is not there; None takes the name of the model's project.

    Raises:
        UserError: the folder has no W&B run, the server cannot be asked, or does not have or take the model.
    """
    path = _in_folder(Path(model).expanduser()) if Path(model).expanduser().is_dir() else model.removeprefix(PREFIX)
    if not 1 <= path.count("/") <= 2:
        raise UserError(f"promote={model} is no model: give ENTITY/PROJECT/NAME:ALIAS, or the folder of a run.")
    path = path if ":" in path else f"{path}:{BEST}"
    with asking():
        if (problem := no_way_online()) is not None:
            raise UserError(f"Nothing is promoted: {problem}.")
        import wandb

        try:
            artifact = wandb.Api().artifact(path)
            linked = artifact.link(f"wandb-registry-{registry}/{collection or artifact.project}")
        except (wandb.Error, ValueError, OSError) as error:
            raise UserError(
                f"W&B did not link {path} into the registry {registry} ({first_line(error)}): check its name, whether "
                "the run was uploaded, and what your key may do."
            ) from error
        return f"{artifact.qualified_name.partition(':')[0]}:{artifact.version}", linked.qualified_name


def _in_folder(folder: Path) -> str:
    """The best model of a run, by the run's folder. Raises UserError: it has no W&B run."""
    file = folder / WANDB / "id"
    if not file.is_file():
        raise UserError(f"promote={folder}: this folder has no W&B run; train with logger=wandb.")
    about = About.read(folder) or About()
    logger = wandb_in(about.config.get("logger"))
    place = [logger.get("entity"), logger.get("project") or "upsweep", model_name(file.read_text(encoding="ascii"))]
    return "/".join(filter(None, place))
