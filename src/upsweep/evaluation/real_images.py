"""The real images that samples are compared with: those of a config's training, or any others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

from upsweep.common.errors import UserError
from upsweep.evaluation.synthesisers import Made, trained_on
from upsweep.tasks.generation.task import Generation


def task_on(
    made: Sequence[Made],
    word: object = None,
    data: Mapping[str, Any] | None = None,
    *,
    extractor: str | None = None,
    weights: str | None = None,
) -> tuple[Generation, str]:
    """The task of a training with the requested real images as its data; and the name of these images.

    It is composed of the configs of the door that runs, and is to be called within its task.

    Args:
        made: synthesisers that make images of one shape.
        word: the name of a `data=` choice, or a folder of images; None: what the synthesisers were trained on, and
            the digits where no run says it.
        data: further settings of the data, by key (`root`, `cache`, `samples`); None sets nothing.
        extractor: what finds features; None: what the data say.
        weights: the local file of Inception's.

    Raises:
        UserError: there are no such images, or the synthesisers were trained on different ones and none are named.
    """
    chosen, title, root = _chosen(made, word)
    config = compose("train", overrides=["task=generation", *chosen])
    generator = made[0].generator
    said = {**(data or {}), "extractor": extractor, "size": generator.size, "channels": generator.channels}
    for key, value in {**said, **root}.items():
        if value is not None and key in config.data:
            config.data[key] = value
    config.task.weights = weights
    task: Generation = instantiate(config.task)
    return task, title


def _chosen(made: Sequence[Made], word: object) -> tuple[list[str], str, dict[str, str]]:
    """The overrides that choose the images, what they are called, and the folder where one is named."""
    known = GlobalHydra.instance().config_loader().get_group_options("data")
    if word is None:
        chosen = trained_on([one.checkpoint for one in made]) or ["data=digits"]
        return chosen, chosen[0].removeprefix("data="), {}
    if isinstance(word, str) and word in known:
        return [f"data={word}"], word, {}
    if isinstance(word, str) and (folder := Path(word).expanduser()).is_dir():
        return ["data=folder"], folder.resolve().name, {"root": str(folder)}
    raise UserError(f"benchmark={word} is not known: choose one of {', '.join(known)}, or a folder of images.")
