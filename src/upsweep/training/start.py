"""Where a training begins: fresh, from weights, or where it stopped. Decided once, at the door."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from upsweep.common.checks import as_typed
from upsweep.common.errors import UserError
from upsweep.networks import checkpoints
from upsweep.networks.network import Network
from upsweep.runs.about import About
from upsweep.runs.folders import to_go_on_from
from upsweep.runs.record import found
from upsweep.tracking.weights import located

log = logging.getLogger("upsweep")

# What decides which state there is beside the generator's weights: a class by its `_target_`, or a whole node.
STATES = ("adversary.discriminator", "factors", "optimizer", "scheduler", "adversary.optimizer", "adversary.scheduler")


@dataclass(frozen=True)
class Started:
    """A built network."""

    network: Network  # with its weights
    source: str  # where they are from, as a sentence
    fresh: bool = False  # as initialised: a data-driven initialisation is still to be calibrated
    checkpoint: Path | None = None  # what Lightning goes on from, optimizer and all; None where a training begins


Start = Callable[[dict[str, Any]], Started]
"""A way to begin: the network's class and arguments -> the network. Raises UserError: it or the weights do not fit."""


def fresh(spec: dict[str, Any]) -> Started:
    """Weights as initialised."""
    return Started(checkpoints.build(spec), "The weights are as initialised.", fresh=True)


def all_weights(said: str | Path, spec: dict[str, Any]) -> Started:
    """The weights of a checkpoint, all of which must fit (`checkpoint=`)."""
    path = located(said, "checkpoint")
    network, state = checkpoints.build(spec), checkpoints.read(path)
    weights = checkpoints.generator_weights(state)
    _warn_of_another(network, state, path)
    checkpoints.fit(network, weights, path)
    network.load_state_dict(weights)
    return Started(network, f"The weights are those of {path}.")


def fitting_weights(said: str | Path, spec: dict[str, Any]) -> Started:
    """Those weights of a checkpoint that fit (`init_from=`), say for another scale; the others are as initialised."""
    path = located(said, "init_from")
    network, state = checkpoints.build(spec), checkpoints.read(path)
    # A deconvolution for another scale is another layer, also where its kernel has the same size (FSRCNN's 9x9).
    stored = checkpoints.said_of(state)
    without = () if stored.get("scale") == getattr(network, "scale", None) else ("upsampler",)
    new = checkpoints.transfer(network, checkpoints.generator_weights(state), path, without=without)
    _warn_of_another(network, state, path)
    rest = f"; as initialised: {', '.join(new)}" if new else ""
    return Started(network, f"The weights are those of {path}{rest}.")


def going_on(folder: Path, config: Mapping[str, Any], epochs: int, otherwise: Start, spec: dict[str, Any]) -> Started:
    """Where the run in a folder stopped (`resume=`): its newest checkpoint that can be read, or else as `otherwise`.

    `config` is all that is set now, to be held against what was set before; `epochs`, how many there are to be.
    Raises UserError: the checkpoint is that of another generator, optimizer, ... (`STATES`), or of a longer training.
    """
    path = newest(folder)
    if path is None:
        begun = otherwise(spec)
        return replace(begun, source=f"{folder} has no checkpoint yet: the training begins anew. {begun.source}")
    state = checkpoints.read(path)
    _refuse_another(folder, config)
    network = checkpoints.build(spec)
    if other := _trained_with(network, state):
        raise UserError(f"{folder} was trained with {other}: add that, or begin a new run.")
    checkpoints.fit(network, checkpoints.generator_weights(state, ema=False), path)
    done = int(state["epoch"]) + 1
    if done > epochs:
        raise UserError(f"{path} has {done} epochs behind it: trainer.max_epochs={epochs} must be {done} or more.")
    return Started(network, f"Going on from {path}.", checkpoint=path)


def start_of(
    folder: Path,
    config: Mapping[str, Any],
    epochs: int,
    *,
    resume: bool = False,
    checkpoint: str | Path | None = None,
    init_from: str | Path | None = None,
) -> Start:
    """The way to begin that a command line asks for. Raises UserError: two kinds of weights are named."""
    if checkpoint is not None and init_from is not None:
        raise UserError(f"checkpoint={checkpoint} and init_from={init_from} both name weights: leave one of them out.")
    begin: Start = fresh
    if checkpoint is not None:
        begin = partial(all_weights, checkpoint)
    if init_from is not None:
        begin = partial(fitting_weights, init_from)
    return partial(going_on, folder, config, epochs, begin) if resume else begin


def newest(folder: Path) -> Path | None:
    """The newest checkpoint of a run from which it can go on, or None; says which could not be read."""
    for path in to_go_on_from(folder, log.warning):
        try:
            checkpoints.read(path)
            return path
        except UserError as error:
            log.warning("%s Falling back to the checkpoint before it.", error)
    return None


def _refuse_another(folder: Path, config: Mapping[str, Any]) -> None:
    before = found(About.read, folder, log.warning)
    was = before.config if before else {}
    for key in STATES if was else ():
        had, has = (_decides(said, key) for said in (was, config))
        # all schedules that are not torch's have the same state
        of_torch = any(str(each).startswith("torch.optim.") for each in (had, has))
        if had != has and (of_torch or not key.endswith("scheduler")):
            raise UserError(
                f"{folder} was trained with {key}={as_typed(had)}, whose state does not fit {key}={as_typed(has)}: "
                "set it as it was, or begin a new run."
            )
    if changed := [key for key in ("objective", "scheduler") if key in was and was[key] != config.get(key)]:
        # asked for, or another version of upsweep with other defaults
        log.warning("%s continues with another %s than before.", folder, " and ".join(changed))


def _decides(config: Mapping[str, Any], key: str) -> Any:
    """What a config says of one of `STATES`; None: nothing."""
    node: Any = config
    for part in key.split("."):
        node = (node or {}).get(part)
    return (node or {}).get("_target_", node or None)


def _trained_with(network: Network, state: Mapping[str, Any]) -> str:
    """What of a stored network differs from this one and shows in no shape of a weight, as arguments; or nothing."""
    stored = checkpoints.said_of(state)
    known = signature(type(network)).parameters if stored else {}
    had = {key: stored.get(key, known[key].default) for key in ("skip", "centre", "views", "symmetry") if key in known}
    return " ".join(f"generator.{key}={value}" for key, value in had.items() if value != getattr(network, key))


def _warn_of_another(network: Network, state: Mapping[str, Any], path: Path) -> None:
    if other := _trained_with(network, state):
        log.warning("The weights of %s were trained with %s, and this generator has another value.", path, other)
