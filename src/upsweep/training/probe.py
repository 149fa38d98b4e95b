"""One step of a training, looked at closely: what passes each layer, forward and back, through hooks that come off."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import activation as activations
from torch.nn.utils import get_total_norm
from torch.utils.hooks import RemovableHandle

from upsweep.common.names import kind_of
from upsweep.runs.verdicts import Layer

END = 0.05  # of its range: so near to an end of it, a sigmoid and a tanh have a fifth of their largest slope


def kernels(module: nn.Module) -> list[nn.Parameter]:
    """The module's own weights: its parameters of more than one axis, also those that a parametrisation keeps."""
    kept = getattr(module, "parametrizations", None)
    own = [*module.parameters(recurse=False), *(kept.parameters() if isinstance(kept, nn.Module) else ())]
    return [p for p in own if p.ndim > 1]


def activations_of(network: nn.Module) -> list[nn.Module]:
    """Torch's activations, those derived from them, and whatever a block calls its activation."""
    known = tuple(getattr(nn, name) for name in activations.__all__ if name != "MultiheadAttention")
    return [m for name, m in network.named_modules() if isinstance(m, known) or name.split(".")[-1] == "activation"]


def silent(module: nn.Module, y: Tensor) -> Tensor | None:
    """Which of the channels of `y` (N, C, ...) a ReLU with no slope below 0 holds at 0 everywhere, as a mask (C).

    None for an activation that cannot die. A PReLU's channel is dead only where its slope is 0.
    """
    match module:
        case nn.ReLU() | nn.ReLU6():
            slope: Tensor | float = 0.0
        case nn.LeakyReLU():
            slope = module.negative_slope
        case nn.PReLU():
            slope = module.weight
        case _:
            return None
    return (y == 0).transpose(0, 1).flatten(1).all(1) & (torch.as_tensor(slope, device=y.device) == 0)


def saturated(module: nn.Module, y: Tensor) -> Tensor | None:
    """Share of the values of `y` near an end of the range of a sigmoid or tanh; None for other activations."""
    match module:
        case nn.Sigmoid() | nn.Hardsigmoid():
            low, high = 0.0, 1.0
        case nn.Tanh():
            low, high = -1.0, 1.0
        case nn.Hardtanh() if not isinstance(module, nn.ReLU6):
            low, high = module.min_val, module.max_val
        case _:
            return None
    margin = END * (high - low)
    return ((y < low + margin) | (y > high - margin)).float().mean()


@dataclass
class Passed:
    """A layer that an image passed: scalars on the network's device, read when the step is over."""

    name: str
    module: nn.Module
    activation: str | None = None  # that followed
    values: dict[str, Tensor] = field(default_factory=dict)


class Probe:
    """Hooks on all layers and activations of a network, for one step; changes nothing and draws no random number.

    Not `inside`, it looks at the weights' gradients alone: a compiled network does not call hooks.
    """

    def __init__(self, network: nn.Module, *, inside: bool = True) -> None:
        modules = network.named_modules()
        self._layers = {name: m for name, m in modules if ".parametrizations" not in name and kernels(m)}
        self._passed: list[Passed] = []
        self._handles: list[RemovableHandle] = []
        if inside:
            self._handles += [m.register_forward_hook(partial(self._layer, name)) for name, m in self._layers.items()]
            self._handles += [m.register_forward_hook(self._activation) for m in activations_of(network)]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _layer(self, name: str, module: nn.Module, _: Any, y: Any) -> None:
        if not isinstance(y, Tensor):
            return
        times = 1 + sum(passed.module is module for passed in self._passed)
        values = _spread(y)
        self._passed.append(Passed(name if times == 1 else f"{name}:{times}", module, values=values))
        if y.requires_grad:
            y.register_hook(lambda gradient: values.update(signal=_norm([gradient])))  # type: ignore[no-untyped-call]

    def _activation(self, module: nn.Module, _: Any, y: Any) -> None:
        if not self._passed or not isinstance(y, Tensor):
            return
        passed, y = self._passed[-1], y.detach()
        passed.activation = kind_of(module)
        found = {**_spread(y), "silent": silent(module, y), "saturated": saturated(module, y)}
        passed.values.update({key: value for key, value in found.items() if value is not None})

    @torch.no_grad()
    def read(self) -> list[Layer]:
        """What was seen, once the gradients are there; with one wait for the device."""
        seen = self._passed or [Passed(name, module) for name, module in self._layers.items()]
        for passed in seen:
            weights = kernels(passed.module)
            passed.values["weight_norm"] = _norm(weights)
            if gradients := [p.grad for p in weights if p.grad is not None]:
                passed.values["gradient_norm"] = _norm(gradients)
        flat = [value.float().flatten() for passed in seen for value in passed.values.values()]
        numbers = iter(torch.cat(flat).tolist() if flat else [])
        read = [
            {key: [next(numbers) for _ in range(value.numel())] for key, value in passed.values.items()}
            for passed in seen
        ]
        last = read[-1].get("signal", [0.0])[0] if read else 0.0
        return [_layer(passed, values, last) for passed, values in zip(seen, read, strict=True)]


def _layer(passed: Passed, values: Mapping[str, list[float]], last: float) -> Layer:
    """What was read of a layer, its gradients also as ratios; `last` is the norm in the last layer's output."""
    known = {key: value[0] for key, value in values.items() if key != "silent"}
    gradient, weight, signal = known.get("gradient_norm"), known["weight_norm"], known.pop("signal", None)
    silent = values.get("silent")
    return Layer(
        name=passed.name,
        activation=passed.activation,
        channels=None if silent is None else len(silent),
        silent=None if silent is None else tuple(i for i, is_silent in enumerate(silent) if is_silent),
        gradient_to_weight=None if gradient is None or weight == 0 else gradient / weight,
        signal=None if signal is None or last == 0 else signal / last,
        **known,
    )


def _spread(y: Tensor) -> dict[str, Tensor]:
    deviation, mean = torch.std_mean(y.detach().float(), correction=0)
    return {"mean": mean, "deviation": deviation}


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return get_total_norm([t.detach().float() for t in tensors])
