"""What a config says of loggers: `logger` is one node, or a node for each of several. Knows no Lightning."""

from collections.abc import Mapping
from typing import Any


def nodes_of(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The node of every logger that a config's `logger` describes, by its key: `logger`, or `logger.wandb`.

    >>> nodes_of({"csv": {"_target_": "CsvRun"}, "none": {}})
    {'logger.csv': {'_target_': 'CsvRun'}}
    """
    if "_target_" in config:
        return {"logger": config}
    nodes = {f"logger.{name}": node for name, node in config.items() if isinstance(node, Mapping)}
    return {key: node for key, node in nodes.items() if "_target_" in node}
