"""How the commands of upsweep are typed here: `python src/train.py` in a checkout, or `upsweep-train` as installed."""

import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import requires
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2]  # src/ of a checkout, which has a script for every command
INSTALLED = "upsweep-"


def in_checkout() -> bool:
    """Whether this code lies in a checkout, and not where a wheel was installed."""
    return (SCRIPTS / "train.py").is_file()


def command(door: str, *arguments: str) -> str:
    """The line that starts a command, for a shell in the current folder: by the name that started this process.

    Outside of a command (in a notebook, say) it is the checkout's script or, where there is none, the installed one.

    >>> command("report", "sweep=my sweep").endswith("'sweep=my sweep'")
    True
    """
    if Path(sys.argv[0]).name.startswith(INSTALLED) or not in_checkout():
        return shlex.join([INSTALLED + door, *arguments])
    script, here = SCRIPTS / f"{door}.py", Path.cwd()
    shown = script.relative_to(here) if script.is_relative_to(here) else script
    return shlex.join(["python", str(shown), *arguments])


def installing(extra: str) -> str:
    """The line that installs an extra: of the checkout or, where the wheel is installed, the packages that it names.

    No index has upsweep, and a wheel's user has no checkout.
    """
    if in_checkout():
        return f"pip install -e '.[{extra}]'"
    asked = (line.partition(";") for line in requires("upsweep") or ())
    return shlex.join(["pip", "install", *(name.strip() for name, _, when in asked if f'"{extra}"' in when)])


def typed(started: Sequence[str]) -> str:
    """A command line as its user typed it, of one that has the interpreter, and the whole path of what that ran.

    >>> typed(["/venv/bin/python", "/venv/bin/upsweep-train", "init=he"])
    'upsweep-train init=he'
    >>> typed(["/venv/bin/python", "/venv/lib/upsweep/doors/train.py", "init=he"])
    '/venv/bin/python -m upsweep.doors.train init=he'
    """
    match [*started]:
        case [_, script, *rest] if Path(script).name.startswith(INSTALLED):
            return shlex.join([Path(script).name, *rest])
        case [python, script, *rest] if Path(script).parts[-3:-1] == ("upsweep", "doors"):
            return shlex.join([python, "-m", f"upsweep.doors.{Path(script).stem}", *rest])
    return shlex.join(started)
