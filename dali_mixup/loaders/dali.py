"""DALI's PyTorch iterators, mixing what they deliver."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

try:
    from nvidia.dali.plugin.pytorch import DALIClassificationIterator, DALIGenericIterator
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"dali_mixup.loaders.dali needs NVIDIA DALI and torch, and {error.name!r} is missing: "
        "pip install 'dali-mixup[cuda12]' (or [cuda13], or [cpu] for a machine without a GPU)",
        name=error.name,
    ) from error

from dali_mixup.advice import MixupWarning, advise_augmentation
from dali_mixup.loaders.mixer import BatchMixer, require_restored
from dali_mixup.mixup import Mixup
from dali_mixup.state import differences

STATE_KEY = "dali_mixup"


class _MixesWhatIsDelivered:
    """Mixes in ``__next__``: after DALI has trimmed the batch, at the moment it is handed out.

    DALI prepares its first batch in the constructor and keeps running ahead; only here is known
    what the consumer gets, and under which epoch and settings.
    """

    output_map: list[str]
    _pipes: list[Any]

    def __init__(
        self,
        *args: Any,
        mixup: Mixup | None = None,
        data_key: str | Sequence[str] | None = None,
        label_key: str | None = None,
        plan_key: str | None = None,
        off_after_epoch: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.mixer = None
        if mixup is not None:
            self.mixer = BatchMixer(
                mixup,
                data_key=data_key,
                label_key=label_key,
                plan_key=plan_key,
                off_after_epoch=off_after_epoch,
            )
        elif data_key or label_key or plan_key or off_after_epoch is not None:
            raise TypeError(
                "data_key, label_key, plan_key, off_after_epoch: expected a mixup beside them, "
                "got mixup=None"
            )
        super().__init__(*args, **kwargs)
        if self.mixer is not None:
            self.mixer.keys(self.output_map)
            advise_augmentation(self.mixer.mixup.alpha, self._pipes, stacklevel=2)

    def __next__(self) -> list[dict[str, Any]]:
        if self.mixer is None:
            return super().__next__()  # type: ignore[misc, no-any-return]
        return self.mixer.next_from(super().__next__, self)  # type: ignore[misc, no-any-return]

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next batch is of; without mixup it changes nothing."""
        if self.mixer is not None:
            self.mixer.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands: ``{"epoch", "step", "mixup", "dali"}``, JSON-able.

        "mixup" holds the settings, to compare; "dali" DALI's checkpoints, one a pipeline, for
        :func:`dali_mixup.dali_checkpoints`.

        Raises
        ------
        ValueError
            Pipelines without ``enable_checkpointing=True``, or no mixup: DALI's iterator has
            ``checkpoints()`` alone.
        """
        return self._mixer_with_state().state_dict(self.checkpoints())  # type: ignore[attr-defined]

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> None:
        """Go on where a state stands; the pipelines have to be built from its checkpoints.

        They carry epoch and step with them; this compares the settings.

        Raises
        ------
        TypeError, ValueError
            This is no state; or, with `strict`, one of other settings, which are named.
        RuntimeError
            The pipelines were not built from the state's checkpoints.
        """
        mixer = self._mixer_with_state()
        require_restored(state, self)
        mixer.load_state_dict(state, strict=strict)

    def _mixer_with_state(self) -> BatchMixer:
        if self.mixer is None:
            raise ValueError("mixup: expected a Mixup to have a state, got None; use checkpoints()")
        return self.mixer

    def _save_state(self) -> str:
        """DALI's iterator data, with ours beside it, which DALI's own iterator does not read."""
        data: str = super()._save_state()  # type: ignore[misc]
        if self.mixer is None:
            return data
        return json.dumps({**json.loads(data), STATE_KEY: self.mixer.state_dict()})

    def _restore_state(self, iterator_data: str) -> None:
        super()._restore_state(iterator_data)  # type: ignore[misc]
        saved = json.loads(iterator_data).get(STATE_KEY) if iterator_data else None
        if self.mixer is None or saved is None:
            return
        self.mixer.load_state_dict(saved, strict=False)
        if found := differences(saved["mixup"], self.mixer.mixup):
            warnings.warn(
                f"the checkpoint is of a run with other settings: {'; '.join(found)}",
                MixupWarning,
                stacklevel=2,
            )


class MixupGenericIterator(_MixesWhatIsDelivered, DALIGenericIterator):  # type: ignore[misc]
    """DALI's ``DALIGenericIterator``, its batches mixed as they are handed out.

    Parameters
    ----------
    pipelines, output_map, size, reader_name, ...
        DALI's own, in DALI's order.
    mixup : Mixup, optional
        None: DALI's iterator exactly.
    data_key : str or sequence of str, optional
        Outputs with images; several share one plan. None: the first of `output_map`.
    label_key : str, optional
        The output with labels. None: the last of `output_map`.
    plan_key : str, optional
        Adds each batch's :class:`MixPlan` to the dict under this name.
    off_after_epoch : int, optional
        Number of epochs that are mixed; the later ones are not.

    Raises
    ------
    TypeError, ValueError
        `mixup` is not a :class:`Mixup`, or a key is not an output.

    Warns
    -----
    UnderfittingWarning
        An alpha above 0.5 behind an :func:`image_pipeline` with RandAugment.
    NumClassesWarning
        After the first epoch: its class ids stay far below ``num_classes``.
    """


class MixupClassificationIterator(_MixesWhatIsDelivered, DALIClassificationIterator):  # type: ignore[misc]
    """DALI's ``DALIClassificationIterator``, its batches mixed as they are handed out.

    Hands out ``[{"data": images, "label": targets}]``, one dict a pipeline. Parameters as
    :class:`MixupGenericIterator`, less `output_map`.
    """
