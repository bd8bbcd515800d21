"""Which samples of a plan are selected from two, and not weighed."""

from __future__ import annotations

import numpy as np

from dali_mixup.plan import MixPlan

Region = tuple[slice, slice]

NOTHING: Region = slice(0), slice(0)
EVERYTHING: Region = slice(None), slice(None)


def regions(plan: MixPlan) -> dict[int, Region]:
    """The rows and columns that samples take from their partners; no entry where one is weighed."""
    found = {
        sample: NOTHING if plan.lam[sample] else EVERYTHING
        for sample in np.flatnonzero((plan.lam == 0) | (plan.lam == 1)).tolist()
    }
    if plan.box is not None:
        for sample, (y0, y1, x0, x1) in enumerate(plan.box.tolist()):
            if y0 < y1 and x0 < x1:
                found[sample] = slice(y0, y1), slice(x0, x1)
    return found
