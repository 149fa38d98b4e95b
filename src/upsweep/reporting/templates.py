"""Pages and pictures from Jinja templates: what all of them share."""

import base64
import hashlib
from collections.abc import Callable, Iterable
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup


def template(package: str, name: str, **filters: Callable[..., object]) -> Template:
    """A file in the folder `page/` of a package; it escapes what it is given."""
    environment = Environment(loader=PackageLoader(package, "page"), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters |= filters
    return environment.get_template(name)


def hashes(texts: Iterable[str]) -> Markup:
    """The styles and scripts that a page's Content-Security-Policy lets run: those with these very texts."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return Markup(" ").join(Markup("'sha256-{}'").format(digest) for digest in digests)


def asset(package: str, *path: str) -> Markup:
    """A file of a package, as it stands in a page."""
    return Markup(resources.files(package).joinpath(*path).read_text(encoding="utf-8"))
