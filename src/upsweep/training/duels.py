"""A look at the samples of a generator beside real images, and at what its discriminator makes of both.

Changes no weight and no running statistic, draws no random number, and waits for no other rank.
"""

import copy
import math

import torch
from torch import Tensor, nn

from upsweep.networks.discriminators.discriminator import Discriminator
from upsweep.networks.network import Network
from upsweep.objectives.adversarial.losses import AdversarialLoss
from upsweep.runs.duels import Duel, Norms
from upsweep.tasks.task import Few


def look(few: Few, generator: Network, epoch: int, judge: tuple[Discriminator, AdversarialLoss] | None = None) -> Duel:
    """What is to be known of a generator, as it is judged, and of its discriminator, as it trains."""
    with torch.no_grad():
        made: Tensor = evaluating(generator)(few.latent).float().clamp(0, 1)
        duel = Duel(
            epoch=epoch,
            diversity=distance(made) / distance(few.held_out),
            energy=energy(made, few.held_out),
            norms=norms_of(generator, few.latent),
        )
    if judge is None:
        return duel
    return Duel(**{**vars(duel), **judged(few, made, *judge)})


def alone(network: nn.Module) -> nn.Module:
    """A copy whose batch norms take statistics of their own: on several GPUs they would ask the other ranks."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]  # of the same parameters and buffers
    return copied


def evaluating(network: nn.Module) -> nn.Module:
    """A copy in evaluation."""
    return alone(network).eval()


def training(network: nn.Module) -> nn.Module:
    """A copy in training, with the statistics of each batch, but without dropout."""
    copied = alone(network).train().requires_grad_(False)
    for module in copied.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    return copied


def distance(images: Tensor) -> float:
    """The mean Euclidean distance between two of the images."""
    return torch.pdist(images.flatten(1)).mean().item()


def energy(made: Tensor, real: Tensor) -> float:
    """The energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| of two sets, over E|Y - Y'| (Szekely and Rizzo 2013).

    Without bias: of two sets from one distribution it is 0 in the mean.
    """
    across = torch.cdist(made.flatten(1), real.flatten(1)).mean().item()
    return (2 * across - distance(made)) / distance(real) - 1


def above(some: Tensor, others: Tensor) -> float:
    """The chance that one of some logits (N,) is larger than one of others (M,), a tie counting half: the AUC."""
    difference = some[:, None] - others
    return ((difference > 0).float() + (difference == 0).float() / 2).mean().item()


def error_of_a_guess(n: int, m: int) -> float:
    """The standard error of `above` for N and M logits from one distribution (Mann and Whitney 1947)."""
    return math.sqrt((n + m + 1) / (12 * n * m))


def judged(few: Few, made: Tensor, discriminator: Discriminator, loss: AdversarialLoss) -> dict[str, float]:
    """What a discriminator tells of samples and real images, and how much of a gradient the samples get."""
    network = training(discriminator)
    # One batch of all real images: norms would set two apart by what is only chance.
    real = network(torch.cat([few.trained_on, few.held_out])).float()
    learnt, held_out = real.split([len(few.trained_on), len(few.held_out)])
    logits = network(made).float()
    pairs = min(len(held_out), len(made))
    with torch.enable_grad():
        images = made.detach()[:pairs].requires_grad_()
        paid = loss.generator(held_out[:pairs], network(images).float())
    (gradient,) = torch.autograd.grad(paid, images)
    return {
        "told_apart": above(held_out, logits),
        "gradient": pairs * gradient.flatten(1).norm(dim=1).mean().item(),
        "by_heart": above(learnt, held_out),
        "by_heart_error": error_of_a_guess(len(learnt), len(held_out)),
    }


@torch.no_grad()
def norms_of(generator: Network, latents: Tensor) -> Norms | None:
    """The batch norm whose running statistics are furthest from those of samples; None where none keeps any."""
    network, found = evaluating(generator), list[Norms]()

    def compared(name: str, norm: nn.BatchNorm2d, x: Tensor) -> None:
        assert norm.running_mean is not None and norm.running_var is not None
        variance, mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
        variance, running = variance + norm.eps, norm.running_var + norm.eps
        offset = ((norm.running_mean - mean).square() / variance).mean().sqrt().item()
        ratio = (running / variance).log().abs().mean().div(2).exp().item()
        found.append(Norms(name=name, offset=offset, ratio=ratio))

    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            # In training what comes next sees what it sees there.
            module.train().register_forward_pre_hook(lambda m, x, name=name: compared(name, m, x[0]))
    network(latents)
    return max(found, key=lambda norms: max(norms.offset, norms.ratio - 1), default=None)
