"""The sizes of images that a chain of halvings and doublings can make."""

from upsweep.common.errors import UserError

FIRST = (4, 5, 6, 7)  # sides of the smallest features
USUAL = (28, 32, 48, 64, 128)


def first_and_doublings(size: int) -> tuple[int, int]:
    """(first, n) with size = first * 2^n, n at least 1 and `first` 4 to 7: 28 is 7 * 2^2, and 64 is 4 * 2^4.

    Raises UserError where there are none.
    """
    first, n = size, 0
    while first > max(FIRST) and first % 2 == 0:
        first, n = first // 2, n + 1
    if first not in FIRST or n < 1:
        usual = ", ".join(map(str, USUAL))
        raise UserError(f"data.size={size} must be 4, 5, 6 or 7 times 2, 4, 8, 16, ...: choose one of {usual}.")
    return first, n
