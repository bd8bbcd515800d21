"""A torchdata node that mixes, for DALI's dynamic mode: it stands behind DALI's ToTorch."""

from __future__ import annotations

from typing import Any

try:
    from torchdata.nodes import BaseNode
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"dali_mixup.loaders.nodes needs torchdata, and {error.name!r} is missing: "
        "pip install torchdata",
        name=error.name,
    ) from error

from dali_mixup.loaders.mixer import BatchMixer
from dali_mixup.mixup import Mixup


class MixupNode(BaseNode[Any]):  # type: ignore[misc]
    """Mixes the batches of the node before it.

    Parameters
    ----------
    source : torchdata.nodes.BaseNode
        Hands out (images, labels), as DALI's ``nodes.ToTorch`` does, or dicts of tensors.
    mixup : Mixup
    **options
        ``data_key``, ``label_key``, ``plan_key`` (for dicts) and ``off_after_epoch``, as
        :class:`dali_mixup.loaders.mixer.BatchMixer` takes them.

    Notes
    -----
    The state holds epoch and step of the plans and the source's own state. DALI's dynamic readers
    cannot go on from a state (DALI 2.4: NotImplementedError when it is loaded): over them begin an
    epoch anew, with :meth:`set_epoch`.

    Examples
    --------
    >>> loader = torchdata.nodes.Loader(MixupNode(ToTorch(images), mixup))  # doctest: +SKIP
    """

    def __init__(self, source: BaseNode[Any], mixup: Mixup, **options: Any) -> None:
        super().__init__()
        if not isinstance(source, BaseNode):
            raise TypeError(
                f"source: expected a torchdata node, got {source!r}; "
                "wrap other loaders in MixupLoader"
            )
        self.source = source
        self.mixer = BatchMixer(mixup, **options)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins with the next reset."""
        self.mixer.set_epoch(epoch)

    def reset(self, initial_state: dict[str, Any] | None = None) -> None:
        """Begin the next epoch, or go on where a state stands."""
        super().reset(initial_state)
        if initial_state is not None:
            self.source.reset(initial_state["source"])
            self.mixer.load_state_dict(initial_state["mixer"])
            return
        self.source.reset(None)
        if self.mixer.step:
            self.mixer.set_epoch(self.mixer.epoch + 1)

    def next(self) -> Any:
        """The next batch, mixed."""
        return self.mixer.next_from(lambda: next(self.source))

    def get_state(self) -> dict[str, Any]:
        """``{"source", "mixer"}``."""
        return {"source": self.source.state_dict(), "mixer": self.mixer.state_dict()}
