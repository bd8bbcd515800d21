"""Who needs the processor's other cores."""

from __future__ import annotations

from contextvars import ContextVar

in_a_loader: ContextVar[bool] = ContextVar("in_a_loader", default=False)
"""Whether a loader mixes, which leaves the other cores to those who prepare the next batches."""
