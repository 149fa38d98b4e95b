"""Train the classifier of digits by whose features generated digits are judged, and ship it with its card.

    UPSWEEP_DATA=PATH OMP_NUM_THREADS=1 python docs/digits.py

MNIST's idx files lie in PATH/generation. Three minutes on one core. Writes digits.safetensors, digits.json and
digits.md into src/upsweep/metrics/.
"""

import gzip
import hashlib
import json
import time
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from upsweep.common.files import write_whole
from upsweep.data.known import data_root
from upsweep.metrics.extractors import DIGITS, DigitClassifier

SEED, EPOCHS, BATCH, RATE = 1, 5, 128, 4e-3
NOISE = 0.2  # the largest standard deviation
LICENCE = (
    "The weights are under the project's MIT licence. MNIST is by Y. LeCun, C. Cortes and C. Burges, under "
    "CC BY-SA 3.0; its training images are no part of this file."
)


def mnist(split: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 28, 28) in [0, 1] and labels (N,) of `train` or `t10k`."""
    root = data_root(None)
    if root is None:
        raise SystemExit(__doc__)

    def values(name: str, header: int) -> Tensor:
        data = gzip.decompress((root / "generation" / f"{split}-{name}-ubyte.gz").read_bytes())
        return torch.from_numpy(np.frombuffer(data, np.uint8, offset=header).copy())

    return values("images-idx3", 16).reshape(-1, 1, 28, 28) / 255, values("labels-idx1", 8).long()


def seen(images: Tensor) -> Tensor:
    """Images as the network is trained on them: shifted by up to two pixels, and with a little noise.

    Without noise, the features would see little else in a sample than how clean its background is.
    """
    shifted = images.roll(torch.randint(-2, 3, (2,)).tolist(), (-2, -1))
    deviation = NOISE * torch.rand(len(images), 1, 1, 1)
    return (shifted + deviation * torch.randn_like(shifted)).clamp(0, 1)


def train(images: Tensor, labels: Tensor) -> DigitClassifier:
    """A classifier that saw every image `EPOCHS` times."""
    torch.manual_seed(SEED)
    network = DigitClassifier().train()
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for chosen in torch.randperm(len(images)).split(BATCH)[: len(images) // BATCH]:
            loss = F.cross_entropy(network(seen(images[chosen])), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {EPOCHS * total / steps:.4f}", flush=True)
    return network.eval()


@torch.no_grad()
def accuracy(network: DigitClassifier, images: Tensor, labels: Tensor) -> float:
    """The share of images that are classified rightly."""
    guesses = torch.cat([network(some).argmax(1) for some in images.split(1000)])
    return (guesses == labels).double().mean().item()


def page(card: dict[str, Any]) -> str:
    """The card for people."""
    return "\n".join(
        [
            "# digits",
            "",
            f"A classifier of handwritten digits with {card['parameters']:,} parameters, whose {card['features']} "
            f"features before the last layer judge generated digits. {100 * card['accuracy']:.2f} % of MNIST's 10,000 "
            "test images are classified rightly.",
            "",
            f"- **Data**: {card['data']}.",
            f"- **Command**: `{card['command']}`, seed {card['seed']}, torch {card['torch']}.",
            f"- **Training**: {card['epochs']} epochs, {card['seconds']} s on one core.",
            f"- **sha256**: `{card['sha256']}`",
            f"- **Licence**: {card['licence']}",
            "",
        ]
    )


def main() -> None:
    """Train, and write weights and cards."""
    start = time.monotonic()
    network = train(*mnist("train"))
    seconds = round(time.monotonic() - start)
    write_whole(DIGITS, safetensors.torch.save(network.state_dict(), {"format": "pt"}))
    card = {
        "name": "digits",
        "features": 64,
        "parameters": sum(p.numel() for p in network.parameters()),
        "accuracy": accuracy(network, *mnist("t10k")),
        "data": "MNIST's 60,000 training images",
        "command": "python docs/digits.py",
        "seed": SEED,
        "torch": torch.__version__,
        "epochs": EPOCHS,
        "seconds": seconds,
        "sha256": hashlib.sha256(DIGITS.read_bytes()).hexdigest(),
        "licence": LICENCE,
    }
    write_whole(DIGITS.with_suffix(".json"), json.dumps(card, indent=1) + "\n")
    write_whole(DIGITS.with_suffix(".md"), page(card))
    print(page(card))


if __name__ == "__main__":
    main()
