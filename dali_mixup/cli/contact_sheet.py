"""A picture of what was mixed: each image with its box, its two labels and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dali_mixup.plan import MixPlan

PAPER, INK, OWN, PARTNER = "#14161a", "#e9e6df", "#f2a541", "#58b4f0"
GAP, CAPTION, TITLE = 14, 62, 56
CELL = 176  # the least width of a bar with a label at each end


def contact_sheet(
    images: NDArray[np.uint8],
    labels: NDArray[Any],
    plan: MixPlan,
    class_names: Sequence[str],
    *,
    title: str = "",
    columns: int = 4,
) -> Image.Image:
    """Draw a batch of mixed images.

    Parameters
    ----------
    images : uint8 array, shape (B, H, W, 3)
        Mixed.
    labels : int array, shape (B,) or (B, 1)
        The samples' own class ids, before mixing.
    plan : MixPlan
        By which they were mixed.
    class_names : sequence of str
    title : str
    columns : int

    Returns
    -------
    PIL.Image.Image
        RGB. Under each image a bar divided by lam: the own label left, the partner's right. A name
        that is too long for its half is cut off.
    """
    size, height, width, _ = images.shape
    rows = -(-size // columns)
    cell = max(width, CELL)
    step_x, step_y = cell + GAP, height + CAPTION + GAP
    sheet = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP + TITLE), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, TITLE // 2), title, INK, ImageFont.load_default(20), "lm")
    own = labels.reshape(-1)
    for i, image in enumerate(images):
        left, top = GAP + i % columns * step_x, TITLE + i // columns * step_y
        sheet.paste(Image.fromarray(image), (left, top))
        if plan.box is not None and plan.box[i].any():
            y0, y1, x0, x1 = plan.box[i].tolist()
            draw.rectangle((left + x0, top + y0, left + x1 - 1, top + y1 - 1), None, PARTNER, 2)
        names = class_names[own[i]], class_names[own[plan.partner[i]]]
        _bar(draw, left, top + height + 6, cell, float(plan.lam[i]))
        _caption(draw, left, top + height + 18, cell, names, float(plan.lam[i]))
    return sheet


def _bar(draw: ImageDraw.ImageDraw, left: int, top: int, width: int, lam: float) -> None:
    middle = left + round(lam * width)
    draw.rectangle((left, top, left + width - 1, top + 5), PARTNER)
    if middle > left:
        draw.rectangle((left, top, middle - 1, top + 5), OWN)


def _caption(
    draw: ImageDraw.ImageDraw, left: int, top: int, width: int, names: tuple[str, str], lam: float
) -> None:
    font = ImageFont.load_default(14)
    right = left + width - 1
    own, partner = (_cut_off(name, (width - GAP) // 2, font) for name in names)
    draw.text((left, top), own, OWN, font)
    draw.text((left, top + 18), f"{lam:.3f}", INK, font)
    draw.text((right, top), partner, PARTNER, font, "ra")
    draw.text((right, top + 18), f"{1 - lam:.3f}", INK, font, "ra")


def _cut_off(text: str, width: int, font: Any) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
