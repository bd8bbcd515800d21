"""DALI's PyTorch iterators with mixup."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

try:
    import torch
    from nvidia.dali import types
    from nvidia.dali.plugin.pytorch import (
        DALIClassificationIterator,
        DALIGenericIterator,
        torch_utils,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"dali_mixup.loaders.dali needs NVIDIA DALI and torch, and {error.name!r} is missing: "
        "pip install 'dali-mixup[cuda12]' (or [cuda13], or [cpu] for a machine without a GPU)",
        name=error.name,
    ) from error

from dali_mixup.advice import MixupWarning, advise_augmentation, advise_subclass
from dali_mixup.loaders.mixer import BatchMixer, HasMixer, data_of, require_restored
from dali_mixup.mixup import Mixup
from dali_mixup.state import differences

# DALI's iterators raise KeyError for images of 16 bits, because their table lacks the dtype.
torch_utils.to_torch_type.setdefault(types.DALIDataType.UINT16, torch.uint16)

STATE_KEY = "dali_mixup"
STATE_MARK = b"\ndali_mixup:"


class _MixesWhatIsDelivered(HasMixer):
    """Mixes in ``__next__``, after DALI has trimmed the batch.

    DALI prepares its first batch in the constructor and keeps running ahead. What the consumer
    gets, and in which epoch and with which settings, is known only here.
    """

    mixer: BatchMixer | None
    output_map: list[str]
    _pipes: list[Any]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        advise_subclass(cls, stacklevel=2)

    def __init__(
        self,
        *args: Any,
        mixup: Mixup | None = None,
        data_key: str | Sequence[str] | None = None,
        label_key: str | Sequence[str] | None = None,
        mask_key: str | Sequence[str] | None = None,
        target_key: str | None = None,
        plan_key: str | None = None,
        off_after_epoch: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.mixer = None
        self._restored_at: tuple[int, int] | None = None
        options: dict[str, Any] = {
            "data_key": data_key,
            "label_key": label_key,
            "mask_key": mask_key,
            "target_key": target_key,
            "plan_key": plan_key,
            "off_after_epoch": off_after_epoch,
        }
        if mixup is not None:
            self.mixer = BatchMixer(mixup, **options)
        elif given := [name for name, value in options.items() if value is not None]:
            raise TypeError(f"{', '.join(given)}: expected a mixup beside them, got mixup=None")
        super().__init__(*args, **kwargs)
        if self.mixer is not None:
            self.mixer.find_labels(self.output_map)
            advise_augmentation(self.mixer.mixup, self._pipes, stacklevel=2)

    def __next__(self) -> list[dict[str, Any]]:
        if self.mixer is None:
            return super().__next__()  # type: ignore[misc, no-any-return]
        return self.mixer.next_from(super().__next__, self)  # type: ignore[misc, no-any-return]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next batch. Without mixup it has no effect.

        Parameters
        ----------
        epoch : int >= 0
        """
        if self.mixer is not None:
            self.mixer.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the run.

        Returns
        -------
        dict
            ``{"epoch", "step", "mixup", "changed", "dali", "data", "loader"}``, which can be stored
            as JSON. "mixup" holds the settings, "changed" those that were changed during the run,
            "dali" the pipelines' checkpoints, for :func:`dali_mixup.dali_checkpoints`, and "data"
            the batch size and the readers' shards.

        Raises
        ------
        ValueError
            The pipelines were built without ``enable_checkpointing=True``, or ``mixup=None``: use
            ``checkpoints()``, as with DALI's iterator.
        """
        mixer = self._mixer_with_state()
        return mixer.state_dict(self.checkpoints(), data=data_of(self))  # type: ignore[attr-defined]

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> None:
        """Continue from a state. The pipelines have to be built from its checkpoints.

        Parameters
        ----------
        state : dict
            From :meth:`state_dict`.
        strict : bool
            True refuses a state of other settings.

        Raises
        ------
        TypeError, ValueError
            `state` is not a state; or `strict` is set and the settings, the rank, the batch size or
            the data differ, or the pipelines were built from the checkpoints of another position.
            The message names the difference.
        RuntimeError
            The pipelines were not built from checkpoints.
        """
        mixer = self._mixer_with_state()
        require_restored(state, self)
        position = state["epoch"], state["step"]
        if strict and self._restored_at not in (None, position):
            raise ValueError(
                f"state: expected the position of the pipelines' checkpoints, epoch and step "
                f"{self._restored_at}, got {position}; build the pipelines from this state's "
                "checkpoints, or give strict=False"
            )
        mixer.load_state_dict(state, strict=strict, data=data_of(self))

    def _mixer_with_state(self) -> BatchMixer:
        if self.mixer is None:
            raise ValueError("mixup: expected a Mixup to have a state, got None; use checkpoints()")
        return self.mixer

    def _save_state(self) -> str | bytes:
        """DALI's iterator data with our state beside it, which DALI's own iterator ignores."""
        data: str | bytes = super()._save_state()  # type: ignore[misc]
        return data if self.mixer is None else _with_state(data, self.mixer.state_dict())

    def _restore_state(self, iterator_data: str | bytes) -> None:
        super()._restore_state(iterator_data)  # type: ignore[misc]
        saved = _state_in(iterator_data)
        if self.mixer is None or saved is None:
            return
        found = differences(saved["mixup"], self.mixer.mixup)
        self.mixer.load_state_dict(saved, strict=not found)
        self._restored_at = saved["epoch"], saved["step"]
        if found:
            warnings.warn(
                f"the checkpoint is of a run with other settings: {'; '.join(found)}",
                MixupWarning,
                stacklevel=2,
            )


def _with_state(data: str | bytes, state: dict[str, Any]) -> str | bytes:
    """DALI's iterator data with our state beside it.

    From 2.0 on DALI's data are JSON. Before, they are a pickle, whose reader ignores what follows.
    """
    if isinstance(data, bytes):
        return data + STATE_MARK + json.dumps(state).encode()
    return json.dumps({**json.loads(data), STATE_KEY: state})


def _state_in(data: str | bytes) -> Any:
    """Our state in DALI's iterator data; None where there is none."""
    if data[:1] in ("{", b"{"):
        return json.loads(data).get(STATE_KEY)
    _, mark, state = (data or b"").rpartition(STATE_MARK)  # type: ignore[arg-type]
    return json.loads(state) if mark else None


class MixupGenericIterator(_MixesWhatIsDelivered, DALIGenericIterator):  # type: ignore[misc]
    """``DALIGenericIterator`` of DALI with mixup.

    Returns a list with one dict per pipeline. Batches are mixed when they are returned.

    Parameters
    ----------
    *args, **kwargs
        Of ``DALIGenericIterator``, in DALI's order: `pipelines`, `output_map`, `size`,
        `reader_name`, ...
    mixup : Mixup, optional
        None: the iterator behaves as DALI's own.
    data_key : str or sequence of str, optional
        The outputs with images. Several share one plan; for CutMix they have one size. None: the
        first of two outputs; of more, the only one with at least 3 dimensions that is no mask.
    label_key : str or sequence of str, optional
        The output with labels; ``()`` for none. None: the second of two outputs; of more, the only
        one named "label", "labels", "target", "targets" or "y". With several heads, the outputs are
        those that ``mixup.num_classes`` names.
    mask_key : str or sequence of str, optional
        The outputs with masks, as for :meth:`Mixup.mix_masks`, which share the plan of the images.
        They need ``Mixup(alpha=0, cutmix_alpha=1.0)``.
    target_key : str, optional
        Adds the mixed targets under this key and leaves the labels as they are. None: the targets
        take the place of the labels.
    plan_key : str, optional
        Adds the :class:`MixPlan` of each batch to the dict under this key.
    off_after_epoch : int >= 0, optional
        The number of epochs that are mixed. Later epochs are not.

    Raises
    ------
    TypeError, ValueError
        `mixup` is not a :class:`Mixup`, a key is not an output, or a key has to be given.

    Warns
    -----
    UnderfittingWarning
        Mixup alone with an alpha above 0.5 and label smoothing, behind an :func:`image_pipeline`
        with `augment` or `color_jitter`.
    NumClassesWarning
        After the first epoch, if its class ids stay far below ``num_classes``.
    """


class MixupClassificationIterator(_MixesWhatIsDelivered, DALIClassificationIterator):  # type: ignore[misc]
    """``DALIClassificationIterator`` of DALI with mixup.

    Hands out ``[{"data": images, "label": targets}]``, with one dict per pipeline.

    Parameters
    ----------
    *args, **kwargs
        Of ``DALIClassificationIterator``, in DALI's order: `pipelines`, `size`, `reader_name`, ...
    mixup, data_key, label_key, mask_key, target_key, plan_key, off_after_epoch
        As for :class:`MixupGenericIterator`.
    """
