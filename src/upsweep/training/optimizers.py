"""What is optimised how: parameter groups, and the optimizer that torch has only for matrices."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from upsweep.common.errors import UserError


def parameter_groups(module: nn.Module, factors: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
    """The trainable parameters: weights, and biases, norms and slopes, which never decay; apart for each factor.

    `factors`: part of the module, by its dotted name -> factor on the learning rate, which the part's groups say as
    `factor`, for `scale_rates`. A part within a part goes first; what is in none has the factor 1.

    Raises UserError: a factor is negative, or a part has no trainable parameters.
    """
    factors = factors or {}
    trainable = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in trainable.items():
        within = [part for part in factors if f"{name}.".startswith(f"{part}.")]
        factor = factors[max(within, key=len)] if within else 1.0
        length = name.endswith("weight.original0")  # of weight norm
        groups.setdefault((factor, parameter.ndim > 1 and not length), []).append(parameter)
    for part, factor in factors.items():
        if not any(f"{name}.".startswith(f"{part}.") for name in trainable):
            known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in trainable))
            raise UserError(f"factors.{part}: the generator has no trainable part of that name; it has {known}.")
        if not factor >= 0:
            raise UserError(f"factors.{part}={factor} must be 0 or more.")
    return [
        {"params": found, "factor": factor, **({} if decays else {"weight_decay": 0.0})}
        for (factor, decays), found in sorted(groups.items(), key=lambda item: (item[0][0] != 1, not item[0][1]))
    ]


def by_dotted_name(factors: Mapping[str, Any], within: str = "") -> dict[str, float]:
    """`{"levels": {"0": 0.5}}`, as the command line's `+factors.levels.0=0.5` arrives, as `{"levels.0": 0.5}`.

    Raises UserError: a factor is no number.
    """
    flat: dict[str, float] = {}
    for key, value in factors.items():
        if isinstance(value, Mapping):
            flat |= by_dotted_name(value, f"{within}{key}.")
        elif type(value) not in (int, float):
            raise UserError(f"factors.{within}{key}={value} must be a number of at least 0.")
        else:
            flat[f"{within}{key}"] = float(value)
    return flat


def scale_rates(optimizer: torch.optim.Optimizer) -> None:
    """Multiply the learning rate of each group by the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] *= group.get("factor", 1.0)


class Muon(AdamW):
    """Muon (Jordan et al. 2024): the momentum of every matrix, made orthogonal; AdamW for all that is no matrix.

    A kernel counts as the matrix of its first axis by all others: (out, in k k) of a convolution, (in, out k k) of a
    deconvolution. Biases, norms, slopes and kernels of a single row or column are AdamW's. An update of a matrix is
    as large as AdamW's would be (`match_rms_adamw`, Liu et al. 2025), so that one learning rate serves both.
    `torch.optim.Muon`, which takes matrices alone, does the same to a matrix.

    Learning rate and decoupled weight decay are those of both, `betas` AdamW's, `momentum` (Nesterov's) Muon's, and
    `steps` those of the Newton-Schulz iteration.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 2e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 1e-2,
        steps: int = 5,
    ) -> None:
        split = [
            {**group, "params": found, "matrices": matrices}
            for group in (p if isinstance(p, dict) else {"params": [p]} for p in params)
            for matrices in (True, False)
            if (found := [p for p in group["params"] if is_matrix(p) is matrices])
        ]
        super().__init__(split, lr=lr, betas=betas, weight_decay=weight_decay)
        self.momentum, self.steps = momentum, steps

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both; the value of `closure`, which is run first."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        groups = self.param_groups
        for group in groups:
            for p in group["params"]:
                if group["matrices"] and p.grad is not None:
                    self._turn(p, p.grad, group["lr"], group["weight_decay"])
        self.param_groups = [group for group in groups if not group["matrices"]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _turn(self, p: Tensor, gradient: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[p]
        if not state:
            state["step"] = torch.tensor(0.0)  # AdamW, when it loads a state, looks for one everywhere
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average: Tensor = state["momentum_buffer"]
        average.lerp_(gradient, 1 - self.momentum)
        direction = gradient.lerp(average, self.momentum).flatten(1)
        update = orthogonal(direction, self.steps).view(p.shape).to(p.dtype)
        p.mul_(1 - lr * weight_decay)
        p.add_(update, alpha=-lr * 0.2 * max(direction.shape) ** 0.5)


def is_matrix(p: Tensor) -> bool:
    """Whether a parameter, as its first axis by all others, has more than one row and more than one column."""
    return p.ndim > 1 and 1 < p.shape[0] < p.numel()


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """(rows, columns) -> the same shape and singular vectors, its singular values all near 1.

    Newton and Schulz's iteration, of the fifth degree, with the coefficients of Jordan et al. 2024; in bfloat16 on
    CUDA, as there, elsewhere in float32: processors without bfloat16 units take 20 times as long over it.
    """
    x = matrix.bfloat16() if matrix.is_cuda else matrix.float()
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x if wide else x.T
