"""The configs of a sweep's jobs, composed once each: Hydra's sweeper validates them before our launcher needs them."""

import copy
import sys
import time
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.types import HydraContext
from omegaconf import DictConfig

PATIENCE = 2.0  # seconds, after which the terminal is told what takes so long


class OnceEach:
    """`load_sweep_config` that remembers what the sweeper asked for until the launcher asks for it again.

    A config takes a quarter of a second: for hundreds of jobs that is worth telling, and worth doing once.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        self._compose = loader.load_sweep_config
        self._made: dict[tuple[str, ...], DictConfig] = {}
        self._began: float | None = None
        self._told = False

    def __call__(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The config of the job with these overrides, made at the first asking, kept for the second."""
        key = tuple(sweep_overrides)
        if key in self._made:
            return self._made.pop(key)
        self._began = self._began or time.monotonic()
        if not self._told and time.monotonic() - self._began > PATIENCE:
            self._told = True
            print("Composing the configs of all jobs ...", file=sys.stderr, flush=True)
        made = self._compose(master_config, sweep_overrides)
        self._made[key] = copy.deepcopy(made)  # whoever asks first may change what it gets
        return made


def compose_once(context: HydraContext) -> None:
    """Let the context's config loader compose the config of every job once."""
    loader: Any = context.config_loader
    if not isinstance(loader.load_sweep_config, OnceEach):
        loader.load_sweep_config = OnceEach(loader)
