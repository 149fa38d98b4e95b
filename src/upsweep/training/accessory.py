"""What a training is as good without: where it fails, that is told once, and the training goes on."""

import functools
import logging
from collections.abc import Callable
from typing import Any

from pytorch_lightning.callbacks import Callback

from upsweep.common.errors import first_line

log = logging.getLogger("upsweep")


class Accessory(Callback):
    """A callback that shows something and changes nothing: pictures, crops, diagnoses, times.

    The first error in one of its hooks is told, and no hook of it runs any more. In its hooks no rank may wait for
    another one.
    """

    failed = False

    def give_up(self) -> None:
        """Take back what a hook that failed left behind."""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        for name, hook in vars(cls).copy().items():
            if hasattr(Callback, name) and name.startswith(("on_", "setup", "teardown")):
                setattr(cls, name, _once(hook))


def _once(hook: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(hook)
    def careful(self: Accessory, *args: Any, **kwargs: Any) -> None:
        if self.failed:
            return
        try:
            hook(self, *args, **kwargs)
        except Exception as error:
            self.failed = True
            self.give_up()
            what = f"{type(self).__name__} failed and is left out from here on: {first_line(error)}"
            log.warning("%s. The training goes on.", what, exc_info=log.isEnabledFor(logging.DEBUG))

    return careful
