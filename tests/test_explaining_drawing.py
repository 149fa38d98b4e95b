"""Long names of networks stay inside of a sheet of pictures."""

import pytest

from upsweep.explaining.canvas import Canvas
from upsweep.explaining.drawing import as_is, drawn, folded, legend_below, row_title, sheet

NAME = "deconvnet optimizer=muon objective=l1 upsampler=deconv dropout=none norm=instance activation=prelu"


@pytest.mark.parametrize("names", [["a", "b", "c"], [f"{NAME} seed={i}" for i in range(5)]])
def test_a_legend_lies_within_its_sheet_which_keeps_its_plots(names: list[str]) -> None:
    made, axes = sheet(1, 2, width=2.6, height=2.6)
    for name in names:
        axes[0, 0].plot([0, 1], label=name)
    legend_below(made, axes[0, 0])
    pixels = drawn(made)
    (legend,) = made.legends
    box = legend.get_window_extent()
    height, width = pixels.shape[:2]
    assert 0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height
    assert axes[0, 0].get_window_extent().height > 1.5 * made.dpi, "inches of the plot itself"


def test_a_name_is_folded_at_spaces_alone() -> None:
    lines = folded(NAME, 36).splitlines()
    assert " ".join(lines) == NAME and max(map(len, lines)) <= 36
    assert folded("norm-of-one-long-word=instance", 10) == "norm-of-one-long-word=instance"


@pytest.mark.parametrize("name", ["_best", "a$\\foo$ b", "$", "_long-name-of-one-word-with-$-in-it"])
def test_a_name_is_never_read_as_tex_and_never_left_out_of_a_legend(name: str) -> None:
    made, axes = sheet(1, 1)
    axes[0, 0].plot([0, 1], label=as_is(name))
    row_title(axes[0, 0], name)
    legend_below(made, axes[0, 0])
    drawn(made)  # which parses every text
    (text,) = made.legends[0].get_texts()
    assert text.get_text().replace(r"\$", "$").strip() == name


def test_a_heading_that_is_longer_than_the_sheet_goes_on_in_the_next_line() -> None:
    """Runs that are told apart by their last words had one heading."""
    sheets = [Canvas(670) for _ in range(2)]
    ends = [sheet.heading(4, f"{NAME} seed={seed}") for seed, sheet in enumerate(sheets)]
    one, other = (sheet.pixels for sheet in sheets)
    assert ends[0] == ends[1] > Canvas(670).heading(4, "short") and (one != other).any()
    assert (one[:, -4:] == 255).all(), "nothing is cut off"
