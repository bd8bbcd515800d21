"""Which specialisation a batch takes, in which grid, and what no launch can do."""

import re

import pytest

from dali_mixup import OutputFormat
from dali_mixup.backends.cuda.launch import BLOCK, image_launch

PLAIN = OutputFormat()
FLOAT = OutputFormat(dtype="float32", layout="CHW")


def launch(shape, output=FLOAT, layout="HWC", in_alignment=0, out_alignment=0, labels=False):
    form = output.resolve(shape, "uint8", layout)
    return image_launch(form, in_alignment, out_alignment, with_labels=labels, by_pointer=False)


def pixels_of(launch):
    """Pixels that a thread takes: the seventh argument of the template."""
    return int(re.split(r"[<,>]", launch.kernel)[7])


@pytest.mark.parametrize(("in_alignment", "pixels"), [(0, 4), (8, 4), (4, 4), (2, 2), (1, 1)])
def test_runs_of_12_bytes_are_read_4_at_a_time(in_alignment, pixels):
    got = launch((2, 16, 16, 3), in_alignment=in_alignment)

    assert pixels_of(got) == pixels


@pytest.mark.parametrize(("out_alignment", "pixels"), [(0, 4), (8, 2), (4, 1)])
def test_the_outputs_own_alignment_decides_how_it_is_written(out_alignment, pixels):
    got = launch((2, 16, 16, 3), out_alignment=out_alignment)

    assert pixels_of(got) == pixels


def test_labels_take_a_row_of_the_grid_of_their_own():
    without, beside = launch((2, 16, 16, 3)), launch((2, 16, 16, 3), labels=True)

    assert beside.grid == (2, without.grid[1] + 1, 1)


@pytest.mark.parametrize("labels", [False, True])
def test_an_image_of_more_tiles_than_a_grid_has_is_refused(labels):
    most = 65535 - labels
    side = BLOCK * 4

    assert launch((1, most, side, 3), labels=labels).grid == (1, 65535, 1)
    with pytest.raises(ValueError, match=r"images: expected at most 65535 tiles .* got 65536"):
        launch((1, most + 1, side, 3), labels=labels)


def test_an_image_whose_values_do_not_fit_in_31_bits_is_refused():
    largest = 2**31 - 2**22

    with pytest.raises(ValueError, match="tiles"):
        launch((1, 1, largest, 1), PLAIN, "HWC")
    with pytest.raises(
        ValueError, match=f"expected at most {largest} values each, got {largest + 4}"
    ):
        launch((1, 1, largest // 4 + 1, 4), PLAIN, "HWC")
