"""The sizes at which images enter the detectors, half a pixel decided as each of them does."""

from __future__ import annotations

import pytest

from oxidet.transforms import scaled_size


@pytest.mark.parametrize(
    ("size", "trunc", "nearest", "ceil"),
    [
        ((600, 800), (600, 800), (600, 800), (600, 800)),
        ((375, 500), (600, 800), (600, 800), (600, 800)),
        ((333, 500), (600, 900), (600, 901), (600, 901)),
        ((500, 333), (900, 600), (901, 600), (901, 600)),
        ((281, 300), (599, 640), (600, 641), (600, 641)),
        ((480, 640), (600, 800), (600, 800), (600, 800)),
        ((400, 1000), (400, 1000), (400, 1000), (400, 1000)),
        ((300, 1000), (300, 1000), (300, 1000), (300, 1000)),
        ((1000, 3000), (333, 1000), (333, 1000), (334, 1000)),
    ],
)
def test_known_sizes(
    size: tuple[int, int], trunc: tuple[int, int], nearest: tuple[int, int], ceil: tuple[int, int]
) -> None:
    assert scaled_size(*size) == trunc
    assert scaled_size(*size, rounding="floor") == trunc
    assert scaled_size(*size, rounding="round") == nearest
    assert scaled_size(*size, rounding="ceil") == ceil


def test_heights_that_truncation_makes_599() -> None:
    below = [h for h in range(1, 1300) if scaled_size(h, h)[0] == 599]
    assert below == [281, 291, 562, 582, 1109, 1124, 1164, 1171, 1187]
    assert all(scaled_size(h, h, rounding="round")[0] == 600 for h in below)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((600, 800), (800, 1066)),
        ((500, 375), (1066, 800)),
        ((427, 640), (800, 1199)),
        ((1080, 1920), (749, 1333)),
        ((100, 1000), (133, 1333)),
        ((97, 97), (799, 799)),
    ],
)
def test_torchvision_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert scaled_size(*size, min_size=800, max_size=1333, rounding="floor") == expected


def test_a_sliver_keeps_a_pixel() -> None:
    assert scaled_size(1, 5000) == (1, 1000)


def test_arguments() -> None:
    for arguments, words in (
        ((0, 5), "height"),
        ((5, -1), "width"),
        ((5, 5, 0), "min_size"),
        ((5, 5, 600, float("inf")), "max_size"),
        ((5, 5, float("nan")), "min_size"),
    ):
        with pytest.raises(ValueError, match=words):
            scaled_size(*arguments)
    with pytest.raises(ValueError, match="rounding"):
        scaled_size(5, 5, rounding="up")  # type: ignore[arg-type]
