"""What a command tells the Python process that started it (`upsweep.api`), beside what it prints: one file of JSON."""

import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "UPSWEEP_TELL"  # names the file
FILE = os.environ.pop(VARIABLE, None)  # taken out: processes that this one starts tell nothing


def tell(**said: Any) -> None:
    """Add plain values to what was told so far; nobody listens in a command that a shell started."""
    if FILE is not None:
        path = Path(FILE)
        path.write_text(json.dumps({**heard(path), **said}), encoding="utf-8")


def heard(path: Path) -> dict[str, Any]:
    """What has been told so far."""
    said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return said
