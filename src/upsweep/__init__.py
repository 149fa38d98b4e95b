"""upsweep: sweep deconvolutional generators for super-resolution, and see what each choice is worth.

From Python: `train`, `sweep`, `upscale`, `evaluate` (see `upsweep.api`) and `load_generator`. They are imported when
they are asked for, since `import upsweep` must cost nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from upsweep.common.plotless import leave_plots_out

if TYPE_CHECKING:
    from upsweep.api import Evaluation, Run, Sweep, evaluate, sweep, train, upscale
    from upsweep.common.errors import UserError
    from upsweep.networks.checkpoints import load_generator

__all__ = ["Evaluation", "Run", "Sweep", "UserError", "evaluate", "load_generator", "sweep", "train", "upscale"]
__version__ = "0.1.0"

_ELSEWHERE = {"UserError": "upsweep.common.errors", "load_generator": "upsweep.networks.checkpoints"}

leave_plots_out()


def __getattr__(name: str) -> Any:
    """What Python asks for where the module has no such name (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'upsweep' has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, "upsweep.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
