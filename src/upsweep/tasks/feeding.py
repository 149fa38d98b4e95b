"""What the DataModules of all tasks share: random numbers by place, shares of devices, files that cannot be used.

Whatever is random in what is fed is a pure function of (seed, epoch, index): it hangs on no worker, batch or device.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, TypeVar

import numpy as np
import pytorch_lightning as pl
from numpy.random import Philox
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from upsweep.common.errors import UserError

WORDS = 4  # 64-bit words a sample (one Philox block); of a patch: image, top, left, turn
ROWS = 1024  # samples whose words are drawn in one go
log = logging.getLogger("upsweep")

Batch = TypeVar("Batch")


def draw(seed: int, epoch: int, index: int) -> list[int]:
    """Four random 64-bit words, a pure function of the arguments.

    They are block `index` of the counter-based generator Philox 4x64 under the key (seed, epoch): Salmon et
    al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    return _rows(seed, epoch, index // ROWS)[index % ROWS]


@lru_cache(maxsize=4)
def _rows(seed: int, epoch: int, block: int) -> list[list[int]]:
    """`draw` for ROWS neighbours: making a generator costs 20 times as much as reading one row of this."""
    rows: list[list[int]] = words_of(seed, epoch, block).tolist()
    return rows


@lru_cache(maxsize=4)
def words_of(seed: int, epoch: int, block: int) -> NDArray[np.uint64]:
    """`draw` for the ROWS samples from `block` * ROWS on: (ROWS, WORDS)."""
    return philox(seed, epoch, block * ROWS).random_raw(WORDS * ROWS).reshape(ROWS, WORDS)


def philox(seed: int, epoch: int, counter: int) -> Philox:
    """The counter-based generator under the key (seed, epoch), from a block on."""
    key = np.array([seed % 2**64, epoch], np.uint64)  # a list would pass through float64 and lose bits
    return Philox(key=key, counter=counter)


class EpochSampler(Sampler[tuple[int, int]]):
    """The keys (epoch, rank), (epoch, rank + world), ...: a part of the epoch that no other device sees.

    Every device gets count // world of them (else they would take unequal numbers of steps and wait for each
    other for ever); nothing is padded. Lightning calls `set_epoch`. An epoch that was cut goes on where it was.
    """

    def __init__(self, count: int, *, rank: int = 0, world: int = 1) -> None:
        self.count, self.rank, self.world, self.epoch = count, rank, world, 0
        self._cut: tuple[int, int] | None = None  # an epoch, and how many of its keys this device has had

    def set_epoch(self, epoch: int) -> None:
        """The epoch whose keys the next iteration gives."""
        self.epoch = epoch

    def go_on(self, epoch: int, had: int) -> None:
        """In that epoch, leave out the first keys of this device."""
        self._cut = epoch, had

    def __len__(self) -> int:
        return self.count // self.world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        had = self._cut[1] if self._cut is not None and self._cut[0] == self.epoch else 0
        return zip(repeat(self.epoch), range(self.rank, len(self) * self.world, self.world)[had:], strict=False)


class LateLoader(DataLoader[Batch]):
    """A DataLoader whose workers begin when the first batch is asked for.

    Lightning calls `iter` before `set_epoch`: after a resume, the workers of an ordinary loader would run
    ahead with the keys of the wrong epoch.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # a generator over the iterator
        yield from super().__iter__()


def as_it_is(batch: Any) -> Any:
    """The collate function of a data set that gives whole batches already."""
    return batch


class ImageFeed(pl.LightningDataModule):
    """A DataModule that is fed by a source of images.

    Works under a trainer of any number of devices (made with `use_distributed_sampler=False`: the samplers are ours),
    and without one after `setup()`.
    """

    strict: bool
    _passed_over: list[str]

    def leave_out(self, refused: Mapping[str, str]) -> None:
        """Say which images are left out, and why; raises UserError of the first with `strict`."""
        self._passed_over += refused
        for sentence in refused.values():
            if self.strict:
                raise UserError(f"{sentence} (data.strict=true stops here)")
            if self.rank == 0:
                log.warning("Left out: %s", sentence)

    @property
    def passed_over(self) -> Sequence[str]:
        """Files that could not be used, each once."""
        return tuple(dict.fromkeys(self._passed_over))

    @property
    def rank(self) -> int:
        """The number of this device."""
        return self.trainer.global_rank if self.trainer else 0

    @property
    def world(self) -> int:
        """How many devices there are."""
        return self.trainer.world_size if self.trainer else 1

    @property
    def pinned(self) -> bool:
        """Whether batches go to a GPU."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


def none_usable(files: Sequence[str], purpose: str, refused: Mapping[str, str]) -> UserError:
    """What to raise where no image can be used."""
    reason = f"; {next(iter(refused.values()))}" if refused else ""
    return UserError(f"None of {len(files)} image files can be used for {purpose}{reason}.")


def require(holds: bool, name: str, value: object, wanted: str) -> None:
    """Raise UserError unless a key of `data` has a value as is wanted."""
    if not holds:
        raise UserError(f"data.{name}={value!r}: it must be {wanted}.")


def require_counts(data: Any, *names: str) -> None:
    """Raise UserError for the first attribute that is no whole number above 0; `num_workers` may be 0."""
    for name in names:
        value = getattr(data, name)
        require(type(value) is int and value > 0, name, value, "a whole number above 0")
    workers = data.num_workers
    require(type(workers) is int and workers >= 0, "num_workers", workers, "a whole number, 0 or more")
