"""Checks of config values: a wrong one is a UserError of one sentence."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from upsweep.common.errors import UserError

SIMPLE = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}


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


def hold_to_signature(
    made: Callable[..., Any], values: Mapping[str, Any], named: Callable[[str], str] = lambda name: name
) -> None:
    """Raise UserError for the first argument, a plain value of a config, that is not of its parameter's type.

    Args:
        made: what is to be called.
        values: arguments by name; unknown ones, and those without a type hint, pass.
        named: argument -> the key that sets it.
    """
    try:
        hints = get_type_hints(made.__init__ if inspect.isclass(made) else made)
        parameters = inspect.signature(made).parameters
    except (NameError, TypeError, ValueError):  # its type hints cannot be read
        return
    for name, value in values.items():
        known = name in hints and name in parameters
        if known and value != parameters[name].default and not fits(value, hints[name]):
            raise UserError(f"{named(name)}={as_typed(value)} must be {wanted(hints[name])}.")


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value of a config fits a type hint; a mapping with a `_target_` stands for an object."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if hint is float or hint is int:
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    if hint in SIMPLE or hint is None:
        return isinstance(value, hint or NoneType)
    asked = origin or hint
    if not inspect.isclass(asked) or asked is Any or asked is object:
        return True
    if issubclass(asked, Mapping):
        return isinstance(value, dict) and all(fits(one, inner[1]) for one in value.values() if len(inner) == 2)
    if _is_list(asked):
        return isinstance(value, list) and _each_fits(value, asked, inner)
    if asked.__name__ in ("Path", "PathLike"):
        return isinstance(value, str)
    return isinstance(value, dict) and bool(value.get("_target_"))


def _each_fits(values: list[Any], kind: type, inner: tuple[Any, ...]) -> bool:
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return len(values) == len(inner) and all(map(fits, values, inner))
    return not inner or all(fits(value, inner[0]) for value in values)


def wanted(hint: Any) -> str:
    """A type in words: `a number, auto or null`."""
    words = list(dict.fromkeys(_words(hint)))
    if SIMPLE[float] in words and SIMPLE[int] in words:
        words.remove(SIMPLE[int])
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _words(hint: Any) -> list[str]:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return [word for one in inner for word in _words(one)]
    if origin is Literal:
        return [*map(str, inner)]
    if hint in SIMPLE:
        return [SIMPLE[hint]]
    asked, each = origin or hint, [one for one in inner[-1:] if one is not Ellipsis] or [*inner[:1]]
    of = f" ({wanted(each[0])} each)" if each else ""
    if inspect.isclass(asked) and issubclass(asked, Mapping):
        return [f"keys and values{of}"]
    if _is_list(asked):
        length = f" of {len(inner)}" if asked is tuple and Ellipsis not in inner else ""
        return [f"a list{length}{of}"]
    name = getattr(asked, "__name__", str(asked))
    return ["a path" if name in ("Path", "PathLike") else f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"]


def _is_list(kind: Any) -> bool:
    return inspect.isclass(kind) and kind.__module__ in ("builtins", "collections.abc") and issubclass(kind, Iterable)


def as_typed(value: Any) -> str:
    """A value as the command line has it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
