"""Mixes the batches of a loader and counts epochs and steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

from dali_mixup.advice import LabelsSeen
from dali_mixup.checks import require_int
from dali_mixup.mixup import Mixup
from dali_mixup.plan import MixPlan
from dali_mixup.state import dali_checkpoints, make_state, read_position


class BatchMixer:
    """Mixes batch after batch and counts epochs and steps.

    Parameters
    ----------
    mixup : Mixup
    data_key : str or sequence of str, optional
        The keys of the images, in dicts. Several outputs share one plan. None: the first output.
    label_key : str, optional
        The key of the labels. None: the last output.
    plan_key : str, optional
        The key under which to add the :class:`MixPlan`. None: it is not handed out.
    off_after_epoch : int >= 0, optional
        The number of epochs that are mixed. Later epochs are not.
    """

    def __init__(
        self,
        mixup: Mixup,
        *,
        data_key: str | Sequence[str] | None = None,
        label_key: str | None = None,
        plan_key: str | None = None,
        off_after_epoch: int | None = None,
    ) -> None:
        if not isinstance(mixup, Mixup):
            raise TypeError(
                f"mixup: expected a Mixup, got {mixup!r}; those of compat have theirs in .mixup"
            )
        self.mixup = mixup
        self.data_keys = (data_key,) if isinstance(data_key, str) else tuple(data_key or ())
        self.label_key = label_key
        self.plan_key = plan_key
        if off_after_epoch is not None:
            require_int("off_after_epoch", off_after_epoch, least=0)
        self.off_after_epoch = off_after_epoch
        self.epoch = 0
        self.step = 0
        self._labels_seen: LabelsSeen | None = LabelsSeen()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next batch. A new epoch starts at step 0."""
        require_int("epoch", epoch, least=0)
        if epoch != self.epoch:
            self.epoch, self.step = epoch, 0

    def next_from(self, fetch: Callable[[], Any], source: Any = None) -> Any:
        """Fetch a batch, mix it and count it.

        Where `source` is a DALI iterator, the epoch ends with its last batch. Elsewhere it ends
        with the StopIteration of `fetch`, which is passed on.
        """
        try:
            batch = fetch()
        except StopIteration:
            if self.step:
                self._end_epoch()
            raise
        mixed = self._mix(batch, getattr(source, "output_map", None))
        self.step += 1
        if _epoch_is_over(source):
            self._end_epoch()
        return mixed

    def _end_epoch(self) -> None:
        self.epoch, self.step = self.epoch + 1, 0
        if self._labels_seen is not None:
            self._labels_seen.advise(self.mixup.num_classes, stacklevel=4)
            self._labels_seen = None

    def _mix(self, batch: Any, output_map: Sequence[str] | None) -> Any:
        if isinstance(batch, dict):
            return self._mix_dict(batch, output_map, 0)
        if isinstance(batch, list) and all(isinstance(part, dict) for part in batch):
            return [self._mix_dict(part, output_map, i) for i, part in enumerate(batch)]
        if isinstance(batch, (tuple, list)) and len(batch) == 2:
            if self.data_keys or self.label_key or self.plan_key:
                raise TypeError(
                    "data_key, label_key, plan_key: expected a loader of dicts, "
                    f"got one of {_describe(batch)}"
                )
            images, labels = batch
            make: Callable[[Any], Any] = getattr(batch, "_make", type(batch))
            return make(self._mix_pair(images, labels, self._plan(images, 0)))
        raise TypeError(
            "batch: expected [dict, ...], dict, (images, labels) or [images, labels], "
            f"got {_describe(batch)}"
        )

    def _mix_dict(
        self, outputs: dict[str, Any], output_map: Sequence[str] | None, stream: int
    ) -> dict[str, Any]:
        (first, *others), label_key = self.keys(list(outputs) if output_map is None else output_map)
        plan = self._plan(outputs[first], stream)
        mixed = copy(outputs)
        mixed[first], mixed[label_key] = self._mix_pair(outputs[first], outputs[label_key], plan)
        for key in others:
            mixed[key], _ = self.mixup(outputs[key], None, plan=plan)
        if self.plan_key is not None:
            mixed[self.plan_key] = plan
        return mixed

    def _mix_pair(self, images: Any, labels: Any, plan: MixPlan) -> tuple[Any, Any]:
        pair = self.mixup(images, labels, plan=plan)
        if self._labels_seen is not None and self.mixup.enabled:
            self._labels_seen.add(labels)
        return pair

    def keys(self, output_map: Sequence[str]) -> tuple[Sequence[str], str]:
        """The names of the images and of the labels among the outputs; ValueError if missing."""
        if not output_map:
            raise ValueError("data_key, label_key: expected two outputs, got none")
        data_keys = self.data_keys or output_map[:1]
        label_key = self.label_key or output_map[-1]
        missing = [key for key in (*data_keys, label_key) if key not in output_map]
        if missing:
            raise ValueError(
                f"data_key, label_key: expected names among {list(output_map)}, got {missing[0]!r}"
            )
        if label_key in data_keys:
            raise ValueError(
                f"data_key, label_key: expected two outputs, got {label_key!r} for both; "
                f"the outputs are {list(output_map)}"
            )
        if self.plan_key in output_map:
            raise ValueError(f"plan_key: expected a new name, got the output {self.plan_key!r}")
        return data_keys, label_key

    def _plan(self, images: Any, stream: int) -> MixPlan:
        mixed = self.off_after_epoch is None or self.epoch < self.off_after_epoch
        return self.mixup.plan_for(
            images, epoch=self.epoch, step=self.step, stream=stream, mixed=mixed
        )

    def state_dict(self, checkpoints: Sequence[bytes] = ()) -> dict[str, Any]:
        """Return the position of the run; `checkpoints` are DALI's, one per pipeline."""
        return make_state(self.mixup, self.epoch, self.step, checkpoints)

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> None:
        """Continue from a state."""
        self.epoch, self.step = read_position(state, self.mixup, strict=strict)


def _epoch_is_over(source: Any) -> bool:
    """Whether a DALI iterator has handed out the last batch of its epoch.

    It does not always say so by StopIteration: not where the consumer counts the batches and
    resets, nor where it is restored from a checkpoint made there.
    """
    if not hasattr(source, "_advance_and_check_drop_last"):
        return False
    return 0 < source._size <= source._counter or bool(
        source._advance_and_check_drop_last(dry_run=True, end_iteration=False)
    )


def require_restored(state: Any, iterator: Any) -> None:
    """Raise RuntimeError unless the pipelines were restored from as many checkpoints."""
    pipelines = getattr(iterator, "_pipes", [])
    checkpoints = dali_checkpoints(state)
    if len(pipelines) != len(checkpoints):
        raise RuntimeError(
            f"state: expected the checkpoints of {len(pipelines)} DALI pipelines, "
            f"got {len(checkpoints)}"
        )
    if not all(pipeline.is_restored_from_checkpoint for pipeline in pipelines):
        raise RuntimeError(
            "state: expected pipelines built with checkpoint=dali_checkpoints(state)[i], got ones "
            "that start anew; their data would not be what the state's step saw"
        )


def _describe(batch: Any) -> str:
    if isinstance(batch, (tuple, list)):
        return f"{type(batch).__name__} of ({', '.join(type(part).__name__ for part in batch)})"
    return type(batch).__name__
