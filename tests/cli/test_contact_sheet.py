"""The contact sheet: where images, boxes, labels and weights are drawn."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pytest
from support.requirements import require

from dali_mixup import MixPlan

ImageDraw = require("PIL.ImageDraw", backend="dali")
ImageColor = require("PIL.ImageColor", backend="dali")

from dali_mixup.cli.contact_sheet import OWN, PARTNER, contact_sheet  # noqa: E402

COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]
HEIGHT, WIDTH = 40, 60
LABELS = np.array([3, 0, 4, 1, 2])
NAMES = ["ant", "bee", "cat", "dog", "eel"]
PLAN = MixPlan(partner=[1, 2, 3, 4, 0], lam=[0.75, 0.5, 0.25, 1.0, 0.0])


class Place(NamedTuple):
    """Half-open, in pixels."""

    top: int
    bottom: int
    left: int
    right: int


class Text(NamedTuple):
    text: str
    colour: str
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other):
        beside = self.right <= other.left or other.right <= self.left
        return not beside and self.top < other.bottom and other.top < self.bottom


@pytest.fixture
def texts(monkeypatch):
    """What is written, in its order, with the place that it takes."""
    write = ImageDraw.ImageDraw.text
    written = []

    def note(draw, xy, text, fill, font, anchor=None):
        written.append(Text(text, fill, *draw.textbbox(xy, text, font, anchor)))
        write(draw, xy, text, fill, font, anchor)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    return written


def plain_images(height=HEIGHT, width=WIDTH):
    """One image of each colour."""
    colours = np.array(COLOURS, np.uint8)[:, None, None]
    return np.broadcast_to(colours, (len(COLOURS), height, width, 3))


def place_of(colour, pixels):
    y, x = np.nonzero((pixels == colour).all(2))
    return Place(y.min(), y.max() + 1, x.min(), x.max() + 1)


def test_all_images_are_drawn_row_by_row_in_their_order():
    sheet = contact_sheet(plain_images(), LABELS, PLAN, NAMES, columns=3)

    a, b, c, d, e = (place_of(colour, np.asarray(sheet)) for colour in COLOURS)
    assert {(p.bottom - p.top, p.right - p.left) for p in (a, b, c, d, e)} == {(HEIGHT, WIDTH)}
    assert a.left < a.right < b.left < b.right < c.left
    assert (d.left, e.left) == (a.left, b.left)
    assert a.top == b.top == c.top
    assert a.bottom < d.top == e.top


def test_a_row_that_is_not_full_has_its_captions_on_the_sheet(texts):
    sheet = contact_sheet(plain_images(), LABELS, PLAN, NAMES, columns=3)

    assert max(written.bottom for written in texts) < sheet.height


def test_each_image_has_its_own_and_its_partners_name_over_their_weights(texts):
    contact_sheet(plain_images(), LABELS, PLAN, NAMES, title="the title")

    title, *captions = [written.text for written in texts]
    assert title == "the title"
    assert captions == [
        *("dog", "0.750", "ant", "0.250"),
        *("ant", "0.500", "eel", "0.500"),
        *("eel", "0.250", "bee", "0.750"),
        *("bee", "1.000", "cat", "0.000"),
        *("cat", "0.000", "dog", "1.000"),
    ]


def test_the_own_label_is_left_and_the_partners_is_right_in_the_bars_colours(texts):
    sheet = contact_sheet(plain_images(), LABELS, PLAN, NAMES)

    _, own, own_weight, partner, partner_weight = texts[:5]
    image = place_of(COLOURS[0], np.asarray(sheet))
    assert (own.colour, partner.colour) == (OWN, PARTNER)
    assert own.left == pytest.approx(image.left, abs=2)
    assert own_weight.left == pytest.approx(own.left, abs=2)
    assert own.right < partner.left
    assert partner_weight.right == pytest.approx(partner.right, abs=2)
    assert own.bottom <= own_weight.top
    assert own.top > image.bottom


@pytest.mark.parametrize("sample", range(5))
def test_the_bar_is_divided_by_lam(sample):
    sheet = np.asarray(contact_sheet(plain_images(), LABELS, PLAN, NAMES, columns=1))

    image = place_of(COLOURS[sample], sheet)
    bar = sheet[image.bottom + 8]
    own, partner = ((bar == ImageColor.getrgb(colour)).all(1) for colour in (OWN, PARTNER))
    length = own.sum() + partner.sum()
    assert own.sum() == round(length * PLAN.lam[sample])
    assert own[image.left : image.left + own.sum()].all()


def test_the_box_is_drawn_where_the_plan_has_it():
    boxes = np.zeros((5, 4), int)
    boxes[1] = y0, y1, x0, x1 = 5, 15, 20, 50
    plan = MixPlan(PLAN.partner, PLAN.lam, boxes)

    sheet = np.asarray(contact_sheet(plain_images(), LABELS, plan, NAMES))

    image = place_of(COLOURS[1], sheet)
    inside = sheet[image.top : image.bottom, image.left : image.right]
    assert place_of(ImageColor.getrgb(PARTNER), inside) == (y0, y1, x0, x1)
    assert (inside[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] == COLOURS[1]).all()


@pytest.mark.parametrize("size", [8, 64, 224])
def test_texts_do_not_overlap(texts, size):
    names = ["cat", "motorcycle", "n01440764_tench_Tinca_tinca", "x" * 200, ""]

    sheet = contact_sheet(plain_images(size, size), LABELS, PLAN, names, title="alpha=0.2")

    assert [pair for pair in combinations(texts, 2) if pair[0].overlaps(pair[1])] == []
    assert max(written.right for written in texts) <= sheet.width


def test_a_long_name_is_cut_off_and_a_short_one_is_not(texts):
    names = ["ant", "bee", "cat", "n01440764_tench_Tinca_tinca", "eel"]

    contact_sheet(plain_images(64, 64), LABELS, PLAN, names)

    assert texts[1].text.startswith("n01440764")
    assert texts[1].text.endswith("...")
    assert texts[3].text == "ant"
