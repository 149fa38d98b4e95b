"""Batch size, learning rate, precision, layout and compilation: as far as a CPU can tell."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.small_job import NET as DEFAULT
from tests.small_job import RECIPE as DROPPING
from tests.small_job import TRAINER, small_job
from torch import nn

from upsweep.blocks.layout import in_channels_last
from upsweep.common.errors import UserError
from upsweep.data.sources import Photos
from upsweep.networks import checkpoints
from upsweep.runs.layout import LAST
from upsweep.runs.result import Result
from upsweep.tasks.super_resolution.data import PatchData
from upsweep.training import schedules
from upsweep.training.job import train as run
from upsweep.training.saving import SaveLast
from upsweep.training.scaling import Batch, RateRule, synchronise

ROOT = Path(__file__).resolve().parent.parent
RECIPE = {**DROPPING, "dropout": {"_target_": "upsweep.blocks.dropout.Dropout", "p": 0.0}}
NET = {**DEFAULT, "recipe": RECIPE}
BATCH_NORM = {**NET, "recipe": {**RECIPE, "norm": {"_target_": "upsweep.blocks.norm.BatchNorm"}}}


@pytest.fixture
def train(tmp_path: Path, cache: Path) -> Callable[..., tuple[Result, dict[str, torch.Tensor]]]:
    """Train two epochs of twelve patches and give the result and the last weights."""

    def trained(
        name: str, batch_size: int = 4, trainer: dict[str, Any] | None = None, **changes: Any
    ) -> tuple[Result, dict[str, torch.Tensor]]:
        folder = tmp_path / name
        settings: dict[str, Any] = {
            "generator": NET,
            "optimizer": partial(torch.optim.SGD, lr=1e-3),
            "trainer": {**TRAINER, "limit_val_batches": 1, **(trainer or {})},
            "schedule": schedules.Constant(),
            "callbacks": [SaveLast(folder)],
        }
        sizes = {} if "data" in changes else {"batch_size": batch_size}
        result = run(small_job(folder, cache, **{**settings, **sizes, **changes}))
        return result, checkpoints.generator_weights(checkpoints.read(folder / LAST))

    return trained


Train = Callable[..., tuple[Result, dict[str, torch.Tensor]]]


def assert_alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], atol: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=atol, rtol=0, msg=name)


# the batch and the rate


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 4), st.integers(1, 8))
def test_the_effective_batch_is_a_product_and_the_rules_are_its_powers(size: int, d: int, n: int, a: int) -> None:
    effective = Batch(size, d, n, a).effective
    assert effective == size * d * n * a
    linear, sqrt = (RateRule(name, 16).factor(effective) for name in ("linear", "sqrt"))
    assert RateRule("none", 16).factor(effective) == 1
    assert linear == pytest.approx(effective / 16)
    assert sqrt**2 == pytest.approx(linear)


def test_a_rule_that_does_not_exist_is_one_sentence() -> None:
    with pytest.raises(UserError, match="lr_rule=cubic is unknown; choose one of none, linear, sqrt"):
        RateRule("cubic")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="lr_batch_size=0 must be a whole number above 0"):
        RateRule("linear", 0)


def test_the_log_says_the_batch_and_the_rate_at_the_start(train: Train, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "upsweep")
    train("a", 2, {"accumulate_grad_batches": 3}, rule=RateRule("linear", 24))
    assert "6 patches a step (batch_size 2 x accumulated 3 x devices 1 x nodes 1)" in caplog.text
    assert "learning rate 0.00025 (lr_rule=linear, from 0.001 at 24)" in caplog.text


def test_the_rule_is_the_rate_that_one_would_have_typed(train: Train) -> None:
    _, ruled = train("ruled", optimizer=partial(torch.optim.SGD, lr=4e-3), rule=RateRule("sqrt", 16))
    _, typed = train("typed", optimizer=partial(torch.optim.SGD, lr=2e-3))
    assert all(torch.equal(typed[name], value) for name, value in ruled.items())


def test_accumulating_is_a_larger_batch(train: Train) -> None:
    _, whole = train("whole", 6)
    _, parts = train("parts", 2, {"accumulate_grad_batches": 3})
    _, other = train("other", 2)
    assert_alike(whole, parts, atol=1e-6)
    assert any(not torch.allclose(whole[name], value, atol=1e-5) for name, value in other.items())


# precision, layout, compilation


def test_bfloat16_judges_bicubic_as_float32_does_and_keeps_float32_weights(train: Train) -> None:
    plain, full = train("plain")
    mixed, half = train("mixed", trainer={"precision": "bf16-mixed"})
    assert mixed.baseline == plain.baseline
    assert mixed.value == pytest.approx(plain.value, abs=0.1)
    assert mixed.value != plain.value, "nothing ran in bfloat16"
    assert {value.dtype for value in half.values()} == {torch.float32}
    assert_alike(full, half, atol=1e-2)


@pytest.mark.slow
def test_ranks_begin_with_the_same_weights_where_data_scale_them(tmp_path: Path) -> None:
    (tmp_path / "watching.py").write_text(
        "import os\nfrom pathlib import Path\nimport pytorch_lightning as pl\n"
        "class Watch(pl.Callback):\n"
        "    def on_train_start(self, trainer, module):\n"
        "        total = sum(p.double().sum().item() for p in module.generator.parameters())\n"
        "        Path(f'rank{trainer.global_rank}').write_text(repr(total))\n"
    )
    command = [
        *("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "init=lsuv", "logger=none"),
        *("trainer.max_epochs=1", "data.patches_per_epoch=64", "generator.width=4", "trainer.limit_val_batches=1"),
        *("+callbacks.watch._target_=watching.Watch", f"hydra.run.dir={tmp_path / 'run'}"),
    ]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(
        [sys.executable, ROOT / "src" / "train.py", *command],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    first, second = ((tmp_path / f"rank{rank}").read_text() for rank in (0, 1))
    assert first == second


def test_channels_last_reaches_the_layers_and_changes_nothing_else(train: Train) -> None:
    seen = []

    class Watching(nn.L1Loss):
        def forward(self, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
            seen.append(sr.is_contiguous(memory_format=torch.channels_last))
            return super().forward(sr, hr)

    rgb = {**NET, "channels": 3}

    def data(name: str) -> Any:
        return {"generator": rgb, "objective": Watching(), "channels_last": name == "last"}

    results = {}
    for name in ("first", "last"):
        changes = data(name)
        photos = PatchData(
            source=Photos(), scale=2, channels=3, seed=1, patch_size=8, batch_size=4, patches_per_epoch=12, cache="none"
        )
        results[name] = train(name, data=photos, **changes)
    assert seen == [False] * 6 + [True] * 6
    assert_alike(results["first"][1], results["last"][1], atol=1e-6)
    generator = in_channels_last(checkpoints.build(rgb))
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in generator.parameters() if w.ndim == 4)


def test_compiling_keeps_names_and_weights(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = 0

    def backend(module: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        nonlocal graphs
        graphs += 1
        return module.forward

    _, plain = train("plain")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    _, compiled = train("compiled", compiled=True)
    assert graphs == 1, "a graph break, or another graph for every batch"
    assert_alike(plain, compiled, atol=0)


# what needs GPUs, up to the point where it needs them


def test_batch_norm_is_synchronised_where_torch_can(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "upsweep")

    def kinds(network: nn.Module) -> set[str]:
        return {type(layer).__name__ for layer in network.modules() if "BatchNorm" in type(layer).__name__}

    names = list(checkpoints.build(BATCH_NORM).state_dict())
    for ranks, device, expected in (
        (1, "cuda", "BatchNorm2d"),
        (2, "cpu", "BatchNorm2d"),
        (2, "cuda", "SyncBatchNorm"),
    ):
        network = checkpoints.build(BATCH_NORM)
        synchronise(network, ranks, device)
        assert kinds(network) == {expected}
        assert list(network.state_dict()) == names
    assert caplog.text.count("each of 2 ranks takes statistics of its own batch (cpu has no SyncBatchNorm)") == 1
    caplog.clear()
    network = checkpoints.build(NET)
    synchronise(network, 2, "cuda")
    assert kinds(network) == set() and not caplog.text


def test_batches_are_pinned_for_cuda_and_copied_without_waiting() -> None:
    from lightning_fabric.utilities.apply_func import move_data_to_device

    data: Any = PatchData(source=Photos(), scale=2, channels=1, seed=1)
    assert not data.pinned
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda")))
    assert data.pinned
    asked = []

    class Spy(torch.Tensor):
        def to(self, device: torch.device, **kwargs: Any) -> torch.Tensor:  # type: ignore[override]
            asked.append((device.type, kwargs))
            return self

    move_data_to_device(torch.zeros(1).as_subclass(Spy), torch.device("cuda"))
    assert asked == [("cuda", {"non_blocking": True})]


@pytest.mark.slow
def test_two_ranks_say_their_batch_and_that_batch_norm_is_their_own(tmp_path: Path) -> None:
    tiny = ["data.patch_size=8", "data.batch_size=2", "data.patches_per_epoch=16", "trainer.max_epochs=1"]
    slim = ["generator.width=4", "generator.depth=1", "logger=none", "callbacks.pictures=null"]
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.limit_val_batches=1"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "src/train.py"), *tiny, *slim, *ddp, "norm=bn", "lr_rule=linear"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    said = done.stdout + done.stderr
    assert said.count("4 patches a step (batch_size 2 x accumulated 1 x devices 2 x nodes 1)") == 1
    assert "learning rate 0.0005 (lr_rule=linear, from 0.002 at 16)" in said
    assert said.count("each of 2 ranks takes statistics of its own batch") == 1
