"""A training of the user's own, in the place of ours."""

from collections.abc import Mapping
from functools import partial
from inspect import signature
from typing import Any

from upsweep.common.errors import UserError
from upsweep.training.adversarial import Adversarial
from upsweep.training.base import Training
from upsweep.training.supervised import Supervised

OF_THE_RUN = ("task", "generator", "seed", "spec", "fresh")  # arguments that a training is given when it begins


def own_training(own: "partial[Any]", arguments: Mapping[str, Any]) -> "partial[Training]":
    """A training class with arguments of its own, given those of ours besides.

    Args:
        own: the class and what the config says of it.
        arguments: what `Supervised` takes, or with an adversary `Adversarial`.

    Raises:
        UserError: it is no training of that kind, or does not take the arguments.
    """
    ours, other = (Adversarial, Supervised) if "adversary" in arguments else (Supervised, Adversarial)
    name, base = getattr(own.func, "__qualname__", str(own.func)), f"{ours.__module__}.{ours.__name__}"
    if not (isinstance(own.func, type) and issubclass(own.func, Training)) or issubclass(own.func, other):
        against = "against an" if ours is Adversarial else "without an"
        raise UserError(f"training={name} must be a subclass of {base}, which trains {against} adversary.")
    made = partial(own.func, **{**own.keywords, **arguments})  # a partial of Hydra's joins no other
    parameters = (signature(each.__init__).parameters for each in own.func.__mro__)  # type: ignore[misc]
    known = {parameter for each in parameters for parameter in each}
    if unknown := [key for key in made.keywords if key not in known]:
        raise UserError(f"training={name} takes no {unknown[0]}: it must take its own keys, and all that {base} does.")
    try:
        signature(own.func).bind(**made.keywords, **dict.fromkeys(OF_THE_RUN))
    except TypeError as error:
        raise UserError(f"training={name} must take its own keys, and all that {base} does: {error}.") from error
    return made
