"""What a config may say, held to in one sentence."""

from typing import Any, Literal, get_args, get_origin, get_type_hints

from upsweep.common.errors import UserError


def hold_to_literals(group: str, chosen: Any) -> None:
    """Raise UserError for a field of type `Literal` whose value is not one that the type lists."""
    for name, hint in get_type_hints(type(chosen)).items():
        if get_origin(hint) is Literal and getattr(chosen, name) not in get_args(hint):
            known = ", ".join(map(str, get_args(hint)))
            raise UserError(f"{group}.{name}={getattr(chosen, name)} must be one of {known}.")


def at_least(group: str, lowest: float, **numbers: float) -> None:
    """Raise UserError for the first of `numbers`, by name, that is not `lowest` or more."""
    for name, number in numbers.items():
        if not number >= lowest:
            raise UserError(f"{group}.{name}={number} must be at least {lowest}.")
