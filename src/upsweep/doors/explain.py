"""Why a network makes what it makes: python src/explain.py checkpoint=PATH input=photo.png; see docs/explaining.md."""

import os
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from upsweep.cli import door, hold_to_defaults, importing, own_targets


@door("explain", paths=("benchmark",))
def main(cfg: DictConfig) -> None:
    """Explain what the config names; say what was found, and where it lies."""
    hold_to_defaults(cfg)
    # matplotlib's list of fonts: nothing is written into the home folder.
    os.environ.setdefault("MPLCONFIGDIR", str(Path(cfg.data.cache_dir).expanduser().resolve() / "matplotlib"))
    # torch takes seconds to import: `--help` and `--cfg job` do without.
    with importing():
        from upsweep.common.checks import hold_to_signature
        from upsweep.explaining.request import Request
        from upsweep.tracking.reopened import options_of

    asked = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    logger = asked.pop("logger", {})
    hold_to_signature(Request, asked)
    for line in Request(**asked, logger=options_of(logger), allow=own_targets()).answer():
        print(line, flush=True)


if __name__ == "__main__":
    main()
