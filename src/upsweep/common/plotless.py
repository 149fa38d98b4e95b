"""torchmetrics without its plots: it imports matplotlib for them, if that is installed, in every process.

That is half a second of each job of a sweep, and a cache in the home folder, for plots that nobody here makes. Only
`upsweep.explaining` draws with matplotlib.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

FLAGS, FLAG = "torchmetrics.utilities.imports", "_MATPLOTLIB_AVAILABLE"


class Plotless(MetaPathFinder):
    """Finds the module in which torchmetrics says what is installed, and has it say that matplotlib is not."""

    def find_spec(self, fullname: str, *_: Sequence[str] | ModuleType | None) -> ModuleSpec | None:
        """The module's own spec, whose loader sets the flag; None for every other module."""
        if fullname != FLAGS:
            return None
        sys.meta_path.remove(self)  # once, and not for the search below
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_set(module: ModuleType) -> None:
            load(module)
            if hasattr(module, FLAG):
                setattr(module, FLAG, False)

        spec.loader.exec_module = load_and_set  # type: ignore[method-assign]
        return spec


def leave_plots_out() -> None:
    """Keep torchmetrics from importing matplotlib, unless torchmetrics has been imported."""
    if FLAGS not in sys.modules and not any(isinstance(finder, Plotless) for finder in sys.meta_path):
        sys.meta_path.insert(0, Plotless())
