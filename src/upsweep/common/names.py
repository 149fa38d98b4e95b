"""Names of files and of keys in a log, made from names that somebody else chose; of kinds of layers; the first few."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath

MOST_NAMED = 3  # in a sentence
LONGEST = 96  # bytes: with an ending and a number it stays below the 143 that some file systems allow


def safe_name(text: str) -> str:
    """A readable name of letters, digits, `-` and `_`, at most 96 bytes long, another one for every text.

    A text that is such a name stays as it is; of any other the end of the name is a digest.

    >>> safe_name("coffee"), safe_name("a b"), safe_name("a(b")
    ('coffee', 'a_b-c8687a08', 'a_b-38d5ec2d')
    """
    plain = _plain(text)
    return plain if plain == text and 0 < len(plain.encode()) <= LONGEST else _marked(text)


def file_names(names: Iterable[str]) -> dict[str, str]:
    """A safe name for each of some files' names; without their endings, where that leaves no two the same.

    >>> file_names(["coffee.png", "a.png", "A.jpg"])
    {'coffee.png': 'coffee', 'a.png': 'a_png-7f071235', 'A.jpg': 'A_jpg-c88c8fca'}
    """
    short = {name: safe_name(name.removesuffix(PurePath(name).suffix)) for name in names}
    often = Counter(name.casefold() for name in short.values())  # some file systems take A and a for one
    return {name: found if often[found.casefold()] == 1 else _marked(name) for name, found in short.items()}


def shortest_end(
    path: Sequence[str], paths: Iterable[Sequence[str]], *, least: int = 1, key: Callable[[str], str] = str
) -> Sequence[str] | None:
    """The last parts of one of some paths, as few as the others do not have (`key`: what is compared of each part).

    There are at least `least`. None where another path has all of them.

    >>> shortest_end(("a", "x", "hr"), [("a", "x", "hr"), ("a", "y", "hr")])
    ('x', 'hr')
    """
    mine, every = list(map(key, path)), [list(map(key, each)) for each in paths]
    for count in range(least, len(mine) + 1):
        if sum(each[-count:] == mine[-count:] for each in every) == 1:
            return path[-count:]
    return None


def listed(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """The first of some names, for a sentence.

    >>> listed(["a", "b", "c", "d"])
    'a, b, c, ...'
    """
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])


def _plain(text: str) -> str:
    return re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFC", text))


def _marked(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    start = _plain(text).encode()[: LONGEST - 1 - len(digest)].decode(errors="ignore").strip("_")
    return f"{start}-{digest}" if start else digest


def kind_of(layer: object) -> str:
    """The name of a layer's class, as its author wrote it: torch renames those whose weights are parametrised."""
    return type(layer).__name__.removeprefix("Parametrized")
