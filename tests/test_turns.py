"""Networks that see an image in several flips and rotations: their groups, and what they promise."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from upsweep.blocks import Recipe
from upsweep.blocks.dropout import Dropout
from upsweep.blocks.init import He
from upsweep.blocks.norm import Norm
from upsweep.blocks.upsampler import Deconv
from upsweep.common.errors import UserError
from upsweep.imaging.turns import TURNS, back, mean_over, turned
from upsweep.networks.network import cost
from upsweep.networks.upscalers.deconvnet import DeconvNet
from upsweep.networks.upscalers.fsrcnn import FSRCNN
from upsweep.networks.upscalers.sesr import SESR
from upsweep.networks.wrappers import SelfEnsemble

RECIPE = Recipe(He(), torch.nn.PReLU, Norm(), Dropout(), Deconv())
SQUARE = torch.arange(9.0).view(3, 3)


def image(height: int, width: int) -> Tensor:
    return torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(height * width))


def test_the_eight_turns_are_the_symmetries_of_the_square() -> None:
    expected = {tuple(s.rot90(k).flatten().tolist()) for s in (SQUARE, SQUARE.flip(1)) for k in range(4)}
    assert {tuple(turned(SQUARE, turn).flatten().tolist()) for turn in TURNS} == expected
    for turn in TURNS:
        assert torch.equal(back(turned(image(4, 6), turn), turn), image(4, 6))


def test_the_first_four_are_the_rotations() -> None:
    for turn, quarters in zip(TURNS[:4], (0, 1, 3, 2), strict=True):
        assert torch.equal(turned(SQUARE, turn), SQUARE.rot90(quarters))


@given(st.sampled_from([1, 4, 8]), st.integers(5, 9), st.integers(5, 9))
def test_what_is_made_turns_with_the_image(views: int, height: int, width: int) -> None:
    torch.manual_seed(0)
    kernel = torch.rand(1, 1, 5, 5)  # a mean of 3x3 over rotations would be symmetric to flips, too
    lr = image(height, width)

    def seen(x: Tensor) -> Tensor:
        return mean_over(TURNS[:views], lambda y: torch.conv2d(y, kernel, padding=2), x)

    for turn in TURNS:
        same = torch.allclose(seen(turned(lr, turn)), turned(seen(lr), turn), atol=1e-6)
        assert same == (turn in TURNS[:views])


@pytest.mark.parametrize("kind", [DeconvNet, FSRCNN, SESR])
def test_a_network_of_eight_views_is_the_self_ensemble_of_one(kind: type) -> None:
    made = []
    for views in (1, 8):
        torch.manual_seed(3)
        made.append(kind(RECIPE, 2, centre=0.5, skip="bicubic", views=views).eval())
    one, eight = made
    lr = image(6, 9)
    with torch.no_grad():
        torch.testing.assert_close(eight(lr), SelfEnsemble(one)(lr), rtol=0, atol=1e-6)
        assert not torch.allclose(eight(lr), one(lr), atol=1e-4)
    assert [name for name, _ in one.named_parameters()] == [name for name, _ in eight.named_parameters()]
    skip = cost(kind(RECIPE, 2, skip="bicubic")).macs_per_pixel - cost(kind(RECIPE, 2, skip="none")).macs_per_pixel
    priced = [cost(each).macs_per_pixel - skip for each in made]
    assert priced[1] == pytest.approx(8 * priced[0])


@pytest.mark.parametrize("views", [0, 9, True, None, "a", 2.5])
def test_other_numbers_of_views_are_refused(views: object) -> None:
    with pytest.raises(UserError, match=r"generator\.views=.* must be a whole number from 1 to 8"):
        FSRCNN(RECIPE, views=views)  # type: ignore[arg-type]
