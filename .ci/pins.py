"""Renews constraints.txt within the bounds of pyproject.toml, and says what changed: `make pins`.

It pins all packages of all extras on every Python and system that upsweep runs on: a line's marker says where it holds.

    python .ci/pins.py              the newest version of every package
    python .ci/pins.py torch rich   of these alone
    python .ci/pins.py --keep       of none: only what pyproject.toml asks for since
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "constraints.txt"
HEAD = """\
# All packages of all extras, on every Python and system that upsweep runs on: what make, CI and the Dockerfile install
# with. Only what is asked for is installed. CUDA's packages are those that torch pins. Renewed by: make pins
"""


def renew(words: Sequence[str]) -> None:
    """Write constraints.txt; pins of packages that are not renewed stay as they are."""
    before = PINS.read_text(encoding="utf-8")
    upgrade = [f"--upgrade-package={word}" for word in words if word != "--keep"] if words else ["--upgrade"]
    options = ["--universal", "--python-version=3.11", "--all-extras", "--no-annotate", "--no-header", "--quiet"]
    command = [sys.executable, "-m", "uv", "pip", "compile", *options, *upgrade, f"--output-file={PINS}"]
    if code := subprocess.run([*command, "pyproject.toml"], cwd=ROOT, stdout=subprocess.DEVNULL).returncode:
        sys.exit(code)  # uv has said why; the file is as it was
    PINS.write_text(HEAD + PINS.read_text(encoding="utf-8"), encoding="utf-8")
    print("\n".join(changes(before, PINS.read_text(encoding="utf-8"))) or "Nothing changed.")


def changes(before: str, after: str) -> list[str]:
    """What differs between two files of pins: `rich: 15.0.0 -> 15.1.0`, with `new` or `gone` for no version."""
    old, new = _versions(before), _versions(after)
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return [f"{name}: {old.get(name, 'new')} -> {new.get(name, 'gone')}" for name in names]


def _versions(text: str) -> dict[str, str]:
    """The version of each package; where it differs between Pythons or systems, all of them."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, equals, rest = line.partition("==")
        if equals and not line.startswith("#"):
            found.setdefault(name.lower().replace("_", "-"), []).append(rest.partition(";")[0].strip())
    return {name: " or ".join(sorted(versions)) for name, versions in found.items()}


if __name__ == "__main__":
    renew(sys.argv[1:])
