"""Artifacts of W&B: the model that a run made, the data set that it read. Imports wandb when the first one is made."""

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from upsweep.common.errors import first_line

log = logging.getLogger("upsweep")

MODEL, DATA = "model", "data"
BEST, LATEST = "best", "latest"  # aliases
KEPT = "models"  # in a run's W&B folder: the checkpoints of what was logged offline


def model_name(run: str) -> str:
    """The name of the model of a run, by the run's id: `model-1a2b3c4d`, as Lightning's own logger has it."""
    return f"{MODEL}-{run}"


def data_name(name: str) -> str:
    """The name of the artifact of a data set.

    >>> data_name("photos"), data_name("my set")
    ('data-photos', 'data-my-set')
    """
    return f"{DATA}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}"


def model(name: str, checkpoint: Path, metadata: Mapping[str, Any]) -> Any:
    """An artifact of type `model` that holds one file, which must stay as it is until it is uploaded."""
    import wandb

    artifact = wandb.Artifact(name, "model", metadata=_plain(metadata))
    artifact.add_file(str(checkpoint), name="best.ckpt", policy="immutable", skip_cache=True)
    return artifact


def dataset(name: str, digests: Mapping[str, str], metadata: Mapping[str, Any]) -> Any:
    """An artifact of type `dataset` that only refers to images: W&B gets no pixel, and no path of a machine.

    The same names and digests are the same version.

    Args:
        name: of the artifact.
        digests: name of an image -> a digest of its pixels.
        metadata: of all images; a mapping says something of each of them, by its name.
    """
    import wandb
    from wandb.sdk.artifacts.artifact_manifest_entry import ArtifactManifestEntry

    of_each = {key: said for key, said in metadata.items() if isinstance(said, Mapping)}
    artifact = wandb.Artifact(
        name, "dataset", metadata=_plain({key: said for key, said in metadata.items() if key not in of_each})
    )
    # Not `add_reference`: that cannot take our digests, and warns of every image.
    for image, digest in digests.items():
        extra = {key: said[image] for key, said in of_each.items() if image in said}
        artifact.manifest.add_entry(
            ArtifactManifestEntry(path=image, ref=f"upsweep://{digest}", digest=digest, extra=extra)
        )
    return artifact


def kept(checkpoint: Path, folder: Path) -> Path:
    """The checkpoint as it is now, in a run's W&B folder, until `wandb sync` uploads it.

    It is a link to the same bytes, which stays when the run that goes on saves another checkpoint, and takes no room
    until then; a copy where the file system has no links. Earlier ones go.
    """
    file = folder / KEPT / f"best-{checkpoint.stat().st_mtime_ns}.ckpt"
    file.parent.mkdir(parents=True, exist_ok=True)
    for other in file.parent.iterdir():
        if other != file:
            other.unlink()
    if not file.exists():
        try:
            os.link(checkpoint, file)
        except OSError:
            shutil.copy2(checkpoint, file)
    return file


def forget_others(logged: Any) -> None:
    """Delete the earlier versions of a model at W&B, but those that somebody named or linked into a registry."""
    import wandb

    try:
        for version in wandb.Api().artifacts("model", logged.qualified_name.partition(":")[0]):
            named = {*version.aliases} - {BEST, LATEST, version.version}
            if version.id != logged.id and not named and not version.linked_artifacts:
                version.delete(delete_aliases=True)
    except Exception as error:
        log.warning("Earlier versions of %s stay at W&B: %s.", logged.name, first_line(error))


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """As W&B takes it: plain values, and words for numbers that are not finite."""
    said: dict[str, Any] = json.loads(json.dumps(metadata, default=str), parse_constant=str)
    return said
