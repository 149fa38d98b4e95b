"""A LightningDataModule of the user's own feeds super-resolution: any loader, tuples, lists or mappings."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytorch_lightning as pl
import torch
from tests.small_job import FIGURES, TRAINER, small_job
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from upsweep.common.errors import UserError
from upsweep.data.sources import Photos
from upsweep.imaging.resize import enlarge, shrink
from upsweep.metrics.metric import PSNR
from upsweep.metrics.protocol import Protocol
from upsweep.runs.identity import Identity, judging_of
from upsweep.runs.layout import CROP
from upsweep.runs.result import Result
from upsweep.runs.verdicts import read_sentences
from upsweep.tasks.super_resolution.data import PatchData
from upsweep.tasks.super_resolution.pairs import pair_in
from upsweep.tasks.super_resolution.task import SuperResolution
from upsweep.training.callbacks import Pictures, Throughput
from upsweep.training.diagnoses import Diagnoses
from upsweep.training.job import train
from upsweep.training.records import KeepCrop
from upsweep.training.scaling import hold_to_shares

RANDOM = torch.Generator().manual_seed(1)
HR = nn.functional.interpolate(torch.rand(12, 3, 8, 8, generator=RANDOM), size=32, mode="bicubic").clamp(0, 1)
LR = shrink(HR, 2).clamp(0, 1)


class Named(NamedTuple):
    name: str
    lr: Tensor
    hr: Tensor


class Plain(pl.LightningDataModule):
    """Nothing of upsweep's."""

    def __init__(self, form: Any = list, channels: int = 1) -> None:
        super().__init__()
        self.form, self.channels = form, channels

    def loader(self, which: slice, size: int, shuffle: bool = False) -> DataLoader[Any]:
        form, pairs = self.form, TensorDataset(LR[which, : self.channels], HR[which, : self.channels])

        def collate(items: list[Any]) -> Any:
            lr, hr = (torch.stack(each) for each in zip(*items, strict=True))
            return form((lr, hr))

        return DataLoader(pairs, batch_size=size, shuffle=shuffle, collate_fn=collate)

    def train_dataloader(self) -> Any:
        return self.loader(slice(12), 4, shuffle=True)

    def val_dataloader(self) -> Any:
        return self.loader(slice(5), 2)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        while True:
            yield LR[0, :1], HR[0, :1]


class Endless(Plain):
    def train_dataloader(self) -> Any:
        return DataLoader(Stream(), batch_size=4)


class Two(Plain):
    def val_dataloader(self) -> Any:
        return [self.loader(slice(2), 2), self.loader(slice(2, 5), 1)]


class Blind(pl.LightningDataModule):
    def train_dataloader(self) -> Any:
        return []


def trained(folder: Path, data: pl.LightningDataModule, **changes: Any) -> Result:
    task = SuperResolution(FIGURES, data, Protocol(), scale=2)
    given = {"trainer": {**TRAINER, "limit_val_batches": None}, **changes}
    return train(small_job(folder, folder, task=task, **given))


@pytest.mark.parametrize(
    "form",
    [list, tuple, lambda pair: dict(zip(("lr", "hr"), pair, strict=True)), lambda pair: Named("x", *pair)],
    ids=["list", "tuple", "mapping", "named"],
)
def test_batches_of_any_form_train_and_are_judged_image_by_image(tmp_path: Path, form: Any) -> None:
    result = trained(tmp_path, Plain(form))
    psnr = PSNR(Protocol(), 2)
    for lr, hr in zip(LR[:5, :1], HR[:5, :1], strict=True):
        psnr.update(enlarge(lr[None], 2), hr[None], grey=True)
    assert result.state == "finished"
    assert result.baseline["psnr"] == pytest.approx(psnr.compute().item())


def test_colour_images_of_several_loaders_are_judged_together(tmp_path: Path) -> None:
    net = {**small_job(tmp_path, tmp_path).generator, "channels": 3}
    once = {**TRAINER, "max_epochs": 1, "limit_val_batches": None}
    results = [
        trained(tmp_path / kind.__name__, kind(channels=3), generator=net, trainer=once) for kind in (Plain, Two)
    ]
    assert results[0].figures == pytest.approx(results[1].figures)


def test_all_that_is_shown_beside_a_training_is_shown(tmp_path: Path) -> None:
    shown = [Pictures(tmp_path, 2), KeepCrop(tmp_path), Diagnoses(tmp_path), Throughput()]
    result = trained(tmp_path, Plain(), callbacks=shown)
    assert result.state == "finished" and not any(each.failed for each in shown)
    assert {path.stem for path in (tmp_path / "pictures").iterdir()} == {"image_0002", "image_0004"}
    assert (tmp_path / CROP).is_file() and read_sentences(tmp_path)


def test_data_without_an_end_need_to_be_told_how_long_an_epoch_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set trainer\.limit_train_batches"):
        trained(tmp_path / "endless", Endless())
    result = trained(tmp_path / "told", Endless(), trainer={**TRAINER, "limit_train_batches": 3})
    assert result.state == "finished"


@pytest.mark.parametrize(
    ("batch", "told"),
    [
        ([LR], "this one is a list of Tensor"),
        ((LR, "name"), r"a tuple of Tensor \(12, 3, 16, 16\), str"),
        ({"image": LR}, "a dict of Tensor"),
        ((HR, LR), r"\(12, 3, 32, 32\) and \(12, 3, 16, 16\)"),
        ((LR[:, :1], HR[:, :1]), r"\(N, 3, h, w\) and \(N, 3, 2 h, 2 w\)"),
        ((LR * 255, HR * 255), "float32 from 0"),
        (((LR * 255).byte(), (HR * 255).byte()), "uint8 from"),
    ],
)
def test_other_batches_are_refused_with_what_a_batch_must_be(batch: Any, told: str) -> None:
    with pytest.raises(UserError, match=rf"takes batches \(lr, hr\) of float tensors in \[0, 1\].*{told}"):
        pair_in(batch, scale=2, channels=3)


def test_images_of_numpys_float64_are_taken_as_the_network_is() -> None:
    pair = pair_in((LR.double(), HR.double()), scale=2, channels=3)
    assert pair.lr.dtype is pair.hr.dtype is torch.get_default_dtype()


def test_runs_on_other_data_of_ones_own_are_not_compared() -> None:
    def judged(**data: Any) -> str:
        judging = judging_of({"scale": 2, "task": {"_target_": "x", "data": {"_target_": "my.Squares", **data}}})
        return Identity(training={}, validation={}, judging=judging).yardstick

    assert judged(seed=1) == judged(seed=1, batch_size=8) != judged(seed=2)
    ours = {"task": {"_target_": "x", "data": {"_target_": "upsweep.tasks.super_resolution.data.PatchData", "seed": 1}}}
    assert judging_of(ours) == {"task._target_": "x"}


class Derived(PatchData):
    """A DataModule of the user's own that is fed, and tells its images, as ours."""

    def __init__(self, twist: int, **others: Any) -> None:
        super().__init__(**others)


def test_seeds_and_patches_of_data_derived_from_ours_are_compared(tmp_path: Path) -> None:
    def yardstick(name: str, twist: int, seed: int, patch_size: int) -> str:
        given = {"seed": seed, "patch_size": patch_size, "scale": 2, "channels": 1, "patches_per_epoch": 8}
        data = Derived(twist, source=Photos(), cache_dir=str(tmp_path / "cache"), **given)
        node = {"_target_": "my.Derived", "twist": twist, **given}
        once = {**TRAINER, "max_epochs": 1, "limit_val_batches": 1}
        trained(tmp_path / name, data, trainer=once, config={"scale": 2, "task": {"_target_": "x", "data": node}})
        identity = Identity.read(tmp_path / name)
        assert identity is not None and identity.validation
        return identity.yardstick

    assert yardstick("a", 1, 1, 8) == yardstick("b", 1, 2, 6) != yardstick("c", 2, 1, 8)


def test_data_that_lack_a_loader_or_a_scale_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Blind has no val_dataloader, which every run needs"):
        trained(tmp_path, Blind())
    with pytest.raises(UserError, match=r"task\.scale is missing"):
        SuperResolution(FIGURES, Plain())


def test_no_image_is_judged_twice_on_several_devices() -> None:
    class Shared:
        world_size = 2

        def __init__(self, count: int) -> None:
            images = TensorDataset(torch.zeros(count))
            sampler: Any = torch.utils.data.DistributedSampler(images, num_replicas=2, rank=0)
            self.val_dataloaders = DataLoader(images, sampler=sampler)

    hold_to_shares(Shared(4))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="5 images to validate on make no 2 equal shares"):
        hold_to_shares(Shared(5))  # type: ignore[arg-type]
