"""Distances between sets of images: closed forms, slow references, and real digits that were spoilt."""

import math
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tests.test_extractors import idx, mnist
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torchmetrics import Metric
from torchmetrics.image.kid import KernelInceptionDistance

from upsweep.common.errors import UserError
from upsweep.metrics import pairs, reference
from upsweep.metrics.distances import FD, KID, MEASURES, Diversity, Memorised, Precision, Recall
from upsweep.metrics.extractors import Digits, Random
from upsweep.metrics.pairs import evenly, nearest, radii
from upsweep.metrics.reference import Reference, features_of

HIGHER = {"precision", "recall"}


def gaussian(count: int, features: int, seed: int) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed))


def judged(kind: Callable[[Reference], Metric], samples: Tensor, real: Reference, batch: int = 100) -> float:
    metric = kind(real)
    for some in torch.split(samples, batch):
        metric.update(some)
    return float(metric.compute())


def of(validation: Tensor) -> Reference:
    return Reference(training=validation, validation=validation)


# ---- Fréchet distance ----


def exactly(mean: Tensor, deviations: Tensor, count: int) -> Tensor:
    """Features (count, F) whose mean and covariance, diagonal, are exactly these."""
    raw = gaussian(count, len(mean), seed=count).double()
    raw = raw - raw.mean(0)
    white = raw @ torch.linalg.inv(torch.linalg.cholesky(raw.T @ raw / (count - 1))).T
    made: Tensor = white * deviations + mean
    return made


def test_fd_of_two_gaussians_is_the_closed_form() -> None:
    zero, mean = torch.zeros(4), torch.tensor([1.0, -2.0, 0.0, 0.5])
    narrow, wide = torch.tensor([1.0, 0.5, 2.0, 1.0]), torch.tensor([1.0, 1.5, 0.25, 3.0])
    closed = float(mean.square().sum() + (narrow - wide).square().sum())
    real = exactly(zero, narrow, 300)
    assert judged(FD, exactly(mean, wide, 500), of(real)) == pytest.approx(closed, rel=1e-6)
    assert judged(FD, real, of(real)) == pytest.approx(0, abs=1e-6)


def test_fd_of_correlated_gaussians_is_that_of_scipys_square_root() -> None:
    from scipy.linalg import sqrtm

    a, b = (gaussian(400, 6, s).double() @ gaussian(6, 6, s + 9).double() for s in (1, 2))
    root = torch.from_numpy(sqrtm((a.T.cov() @ b.T.cov()).numpy()).real)
    slow = (a.mean(0) - b.mean(0)).square().sum() + (a.T.cov() + b.T.cov() - 2 * root).trace()
    assert judged(FD, a.float(), of(b.float())) == pytest.approx(float(slow), rel=1e-4)


def test_fewer_samples_than_features_have_a_distance() -> None:
    found = judged(FD, gaussian(5, 32, 1), of(gaussian(200, 32, 2)))
    assert 0 < found < 200


def test_fd_stays_on_the_cpu_where_a_device_has_no_float64() -> None:
    def to_mps(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return tensor

    samples, real = gaussian(50, 4, 1), of(gaussian(60, 4, 2))
    metric = FD(real)
    torch.nn.ModuleList([metric])._apply(to_mps)
    metric.update(samples)
    assert metric.device.type == "cpu" and float(metric.compute()) == judged(FD, samples, real)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16, torch.float32])
def test_every_distance_is_the_same_in_a_training_of_any_precision(precision: torch.dtype) -> None:
    samples, real = gaussian(50, 4, 1), of(gaussian(60, 4, 2))
    for kind in MEASURES.values():
        metric = kind(real)
        torch.nn.ModuleList([metric]).to(dtype=precision)  # as Lightning does for bf16-true
        metric.update(samples)
        assert float(metric.compute()) == judged(kind, samples, real)


# ---- kernel distance ----


def slow_kid(x: Tensor, y: Tensor) -> float:
    def kernel(a: Tensor, b: Tensor) -> float:
        return (float(a.double() @ b.double()) / len(a) + 1) ** 3

    def among(some: Tensor) -> float:
        n = len(some)
        return sum(kernel(some[i], some[j]) for i in range(n) for j in range(n) if i != j) / n / (n - 1)

    between = sum(kernel(a, b) for a in x for b in y) / len(x) / len(y)
    return among(x) + among(y) - 2 * between


def test_kid_is_the_double_loop_also_of_unlike_counts() -> None:
    x, y = gaussian(20, 5, 1), gaussian(31, 5, 2) + 0.3
    assert judged(KID, x, of(y), batch=7) == pytest.approx(slow_kid(x, y), rel=1e-9)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save:UserWarning")
def test_kid_of_all_is_that_of_torchmetrics_with_one_subset_of_all() -> None:
    x, y = gaussian(150, 8, 1), gaussian(150, 8, 2) + 0.2
    theirs = KernelInceptionDistance(feature=torch.nn.Identity(), subsets=1, subset_size=150)
    theirs.update(y, real=True)
    theirs.update(x, real=False)
    state = torch.get_rng_state()
    ours = judged(KID, x, of(y))
    assert torch.equal(torch.get_rng_state(), state)
    assert ours == pytest.approx(float(theirs.compute()[0]), abs=1e-5)


def test_kid_of_two_draws_from_one_distribution_is_zero_on_average() -> None:
    found = torch.tensor([judged(KID, gaussian(50, 4, 2 * s), of(gaussian(50, 4, 2 * s + 1))) for s in range(100)])
    assert abs(float(found.mean())) < 3 * float(found.std()) / math.sqrt(len(found))
    assert (found < 0).any()  # a biased estimate has none below 0


def test_the_error_of_kid_is_the_jackknife_that_leaves_each_out() -> None:
    x, y = gaussian(12, 3, 1), gaussian(9, 3, 2) + 0.5
    metric = KID(of(y))
    metric.update(x)
    metric.compute()

    def without(some: Tensor) -> list[Tensor]:
        return [torch.cat([some[:i], some[i + 1 :]]) for i in range(len(some))]

    left = [torch.tensor([slow_kid(one, y) for one in without(x)]), torch.tensor([slow_kid(x, o) for o in without(y)])]
    variance = sum((len(w) - 1) * w.double().var(correction=0) for w in left)
    assert metric.error == pytest.approx(float(variance) ** 0.5, rel=1e-5)


def test_the_error_of_kid_is_what_many_draws_scatter_by() -> None:
    found, errors = [], []
    for seed in range(80):
        metric = KID(of(gaussian(80, 4, 2 * seed)))
        metric.update(gaussian(80, 4, 2 * seed + 1) + 0.5)
        found.append(float(metric.compute()))
        errors.append(metric.error)
    assert torch.tensor(errors).mean() == pytest.approx(float(torch.tensor(found).std()), rel=0.35)


# ---- precision, recall, memorised, diversity ----


def slow_share(features: Tensor, centres: Tensor, k: int = 3) -> float:
    """The share of features in the manifold of the centres, as Kynkäänniemi et al. 2019 define it."""
    inside = 0
    for one in features:
        for centre in centres:
            radius = sorted(float((centre - other).norm()) for other in centres)[k]  # [0] is the centre itself
            if float((one - centre).norm()) <= radius:
                inside += 1
                break
    return inside / len(features)


def test_precision_and_recall_are_the_slow_definition() -> None:
    real, samples = gaussian(30, 3, 1).double(), gaussian(25, 3, 2).double() * 1.5
    assert judged(Precision, samples, of(real)) == pytest.approx(slow_share(samples, real))
    assert judged(Recall, samples, of(real)) == pytest.approx(slow_share(real, samples))
    assert 0.1 < slow_share(samples, real) < 0.9


@pytest.mark.parametrize("kind", [Precision, Recall])
def test_identical_sets_have_all_in_common_and_disjoint_ones_nothing(kind: Callable[[Reference], Metric]) -> None:
    real = gaussian(200, 64, 1)
    assert judged(kind, real, of(real)) == 1
    assert judged(kind, real + 100, of(real)) == 0


def test_a_dropped_mode_lowers_recall_and_not_precision() -> None:
    modes = torch.tensor([[-20.0], [20.0]])
    real, fair = (torch.cat([gaussian(200, 4, s + i) + mode for i, mode in enumerate(modes)]) for s in (1, 5))
    dropped = gaussian(400, 4, 9) + modes[0]
    assert judged(Recall, fair, of(real)) > 0.8
    assert 0.3 < judged(Recall, dropped, of(real)) < 0.5
    assert judged(Precision, dropped, of(real)) > judged(Precision, fair, of(real)) - 0.05


def test_memorised_is_one_of_copies_one_percent_of_fresh_draws_and_none_of_far_ones() -> None:
    real = Reference(training=gaussian(500, 4, 1), validation=gaussian(4000, 4, 2))
    assert judged(Memorised, real.training, real) == 1
    assert judged(Memorised, gaussian(4000, 4, 3), real) == pytest.approx(0.01, abs=0.006)
    assert judged(Memorised, real.training + 10, real) == 0


def test_diversity_is_one_of_fresh_draws_and_none_of_a_collapse() -> None:
    real = gaussian(300, 8, 1)
    assert judged(Diversity, gaussian(300, 8, 2), of(real)) == pytest.approx(1, abs=0.05)
    assert judged(Diversity, 3 * real, of(real)) == pytest.approx(3, rel=1e-5)
    assert judged(Diversity, real[:1].expand(300, -1), of(real)) == pytest.approx(0, abs=1e-6)


# ---- all of them ----


@pytest.mark.parametrize("name", MEASURES)
def test_a_figure_does_not_depend_on_batches_and_forgets_at_reset(name: str) -> None:
    real, samples = Reference(gaussian(90, 6, 1), gaussian(80, 6, 2)), gaussian(70, 6, 3)
    metric = MEASURES[name](real)
    metric.update(gaussian(40, 6, 4) + 5)
    metric.compute()
    metric.reset()
    for some in torch.split(samples, 17):
        metric.update(some)
    assert float(metric.compute()) == pytest.approx(judged(MEASURES[name], samples, real), abs=1e-9)
    assert metric.higher_is_better == (name in HIGHER)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_too_few_samples_are_an_error_not_a_nan(name: str) -> None:
    metric = MEASURES[name](of(gaussian(50, 4, 1)))
    with pytest.raises(UserError, match="samples, and there are 0"):
        metric.compute()


def test_too_few_real_images_are_an_error() -> None:
    with pytest.raises(UserError, match="3 real images of validation and 9 of training"):
        Reference(gaussian(9, 4, 1), gaussian(3, 4, 1))


def test_blocks_of_rows_and_columns_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = gaussian(23, 5, 1).double(), gaussian(31, 5, 2).double()
    whole = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    own = torch.cdist(a, a, compute_mode="donot_use_mm_for_euclid_dist")
    monkeypatch.setattr(pairs, "ROWS", 4)
    monkeypatch.setattr(pairs, "COLUMNS", 7)
    torch.testing.assert_close(nearest(a, b).sqrt(), whole.amin(1))
    torch.testing.assert_close(radii(a, 3).sqrt(), own.sort(1).values[:, 3])


def test_a_few_stand_for_many_at_even_steps() -> None:
    assert evenly(torch.arange(10), 5).tolist() == [0, 2, 4, 6, 8]
    assert evenly(torch.arange(7), 3).tolist() == [0, 2, 4]
    assert evenly(torch.arange(3), 5).tolist() == [0, 1, 2]


REAL, SAMPLES = Reference(gaussian(60, 5, 1), gaussian(50, 5, 2)), gaussian(40, 5, 3) + 0.1


def judge_part(rank: int, folder: str) -> None:
    """What one of two processes does: it sees every second sample, and all real images."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save({name: judged(kind, SAMPLES[rank::2], REAL, 6) for name, kind in MEASURES.items()}, f"{folder}/{rank}")
    dist.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    spawn(judge_part, (str(tmp_path),), nprocs=2)
    alone = {name: judged(kind, SAMPLES, REAL) for name, kind in MEASURES.items()}
    for rank in range(2):
        assert torch.load(tmp_path / str(rank)) == pytest.approx(alone, rel=1e-9)


# ---- the features of real images ----


def test_features_are_extracted_once_and_again_where_images_or_extractor_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extracted = Mock(side_effect=reference._extracted)
    monkeypatch.setattr(reference, "_extracted", extracted)
    batches = list(torch.split(torch.rand(20, 1, 28, 28), 8))
    first = features_of(Random(), batches, tmp_path)
    assert torch.equal(first, torch.cat([Random()(some) for some in batches]))
    assert torch.equal(features_of(Random(), batches, tmp_path), first)
    assert extracted.call_count == 1
    features_of(Digits(), batches, tmp_path)
    changed = [*batches[:-1], batches[-1].clone()]
    changed[-1][0, 0, 0, 0] = 0.5
    assert not torch.equal(features_of(Random(), changed, tmp_path), first)
    assert extracted.call_count == 3
    assert torch.equal(features_of(Random(), batches), first)


def test_damaged_features_are_extracted_again(tmp_path: Path) -> None:
    batches = [torch.rand(5, 1, 28, 28)]
    first = features_of(Random(), batches, tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(features_of(Random(), batches, tmp_path), first)
    assert file.stat().st_size > 100


def test_no_images_and_a_cache_that_cannot_be_written_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no real images"):
        features_of(Random(), [])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data\.cache_dir"):
        features_of(Random(), [torch.rand(5, 1, 28, 28)], tmp_path / "file")


# ---- real digits ----


class Spoilt:
    """Real digits beside what was made of others: 1,000 each."""

    def __init__(self) -> None:
        self.extractor = Digits()
        digits = idx("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[:2000] / 255
        self.training = idx("train-images-idx3-ubyte.gz", 16)[: 1000 * 784].reshape(-1, 1, 28, 28) / 255
        self.digits, self.labels = digits[1::2], idx("t10k-labels-idx1-ubyte.gz", 8)[:2000][1::2]
        self.real = Reference(self.extractor(self.training), self.extractor(digits[::2]))

    def figure(self, kind: Callable[[Reference], Metric], images: Tensor) -> float:
        return judged(kind, self.extractor(images), self.real, 1000)

    def noisy(self, deviation: float) -> Tensor:
        return (self.digits + deviation * gaussian(1000, 784, 1).reshape_as(self.digits)).clamp(0, 1)

    def blurred(self, side: int) -> Tensor:
        return F.avg_pool2d(self.digits, side, 1, side // 2)


@pytest.fixture(scope="module")
def spoilt() -> Spoilt:
    return Spoilt()


@mnist
def test_real_digits_are_far_nearer_to_real_ones_than_any_spoilt_ones(spoilt: Spoilt) -> None:
    real = spoilt.figure(FD, spoilt.digits)
    few = spoilt.digits[spoilt.labels < 5]
    noise = torch.rand(1000, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    spoils = {"blurred": spoilt.blurred(3), "noisy": spoilt.noisy(0.4), "five digits": few, "noise": noise}
    found = {name: spoilt.figure(FD, images) for name, images in spoils.items()}
    assert all(value > 5 * real for value in found.values()), (real, found)
    kids = {name: spoilt.figure(KID, images) for name, images in spoils.items()}
    assert all(value > 5 * abs(spoilt.figure(KID, spoilt.digits)) for value in kids.values()), kids


@mnist
@pytest.mark.parametrize("kind", [FD, KID])
def test_distances_grow_with_blur_and_with_noise(spoilt: Spoilt, kind: Callable[[Reference], Metric]) -> None:
    blurred = [spoilt.figure(kind, spoilt.blurred(side)) for side in (1, 3, 5, 7)]
    noisy = [spoilt.figure(kind, spoilt.noisy(deviation)) for deviation in (0, 0.1, 0.2, 0.4)]
    for found in (blurred, noisy):
        assert found == sorted(found) and found[-1] > 10 * abs(found[0])


@mnist
def test_dropped_digits_lower_recall_and_not_precision(spoilt: Spoilt) -> None:
    few = spoilt.digits[spoilt.labels < 5]
    assert spoilt.figure(Recall, few) < spoilt.figure(Recall, spoilt.digits) - 0.2
    assert spoilt.figure(Precision, few) > spoilt.figure(Precision, spoilt.digits) - 0.05


@mnist
def test_copies_of_training_digits_are_memorised(spoilt: Spoilt) -> None:
    assert spoilt.figure(Memorised, spoilt.training) == 1
    assert spoilt.figure(Memorised, spoilt.digits) < 0.03
