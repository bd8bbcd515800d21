"""A torchdata node that mixes, for DALI's dynamic mode."""

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

from dali_mixup.checks import KEY_LIMIT, require_int
from dali_mixup.loaders.mixer import BatchMixer, HasMixer
from dali_mixup.mixup import Mixup


class MixupNode(HasMixer, BaseNode[Any]):  # type: ignore[misc]
    """A torchdata node that mixes the batches of its source.

    Parameters
    ----------
    source : torchdata.nodes.BaseNode
        Hands out ``(images, labels)``, as DALI's ``nodes.ToTorch`` does, or dicts of tensors.
    mixup : Mixup
    **options
        `data_key`, `label_key`, `mask_key`, `target_key`, `plan_key` and `off_after_epoch`, as for
        :class:`MixupLoader`.

    Notes
    -----
    The state holds the position of the plans and the state of the source. DALI's dynamic readers
    cannot continue from a state (DALI 2.4 raises NotImplementedError when it is loaded). Over them,
    start the epoch again, with :meth:`set_epoch`.

    Examples
    --------
    >>> loader = torchdata.nodes.Loader(MixupNode(ToTorch(images), mixup))  # doctest: +SKIP
    """

    mixer: BatchMixer

    def __init__(self, source: BaseNode[Any], mixup: Mixup, **options: Any) -> None:
        super().__init__()
        if not isinstance(source, BaseNode):
            raise TypeError(
                f"source: expected a torchdata node, got {source!r}; "
                "wrap other loaders in MixupLoader"
            )
        self.source = source
        self.mixer = BatchMixer(mixup, **options)
        self._next_epoch: int | None = None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that begins with the next reset.

        Parameters
        ----------
        epoch : int >= 0
        """
        self._next_epoch = require_int("epoch", epoch, least=0, below=KEY_LIMIT)

    def reset(self, initial_state: dict[str, Any] | None = None) -> None:
        """Begin the next epoch, or continue from a state."""
        super().reset(initial_state)
        if initial_state is not None:
            self.source.reset(initial_state["source"])
            self.mixer.load_state_dict(initial_state["mixer"])
            return
        self.source.reset(None)
        if self._next_epoch is not None:
            self.mixer.go_to(self._next_epoch, 0)
            self._next_epoch = None
        elif self.mixer.step:
            self.mixer.go_to(self.mixer.epoch + 1, 0)

    def next(self) -> Any:
        """Return the next batch, mixed."""
        return self.mixer.next_from(lambda: next(self.source))

    def get_state(self) -> dict[str, Any]:
        """Return ``{"source", "mixer"}``."""
        return {"source": self.source.state_dict(), "mixer": self.mixer.state_dict()}
