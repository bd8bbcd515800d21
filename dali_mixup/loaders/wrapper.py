"""A wrapper that mixes the batches of any loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dali_mixup.advice import advise_augmentation, advise_sharding
from dali_mixup.loaders.mixer import (
    BatchMixer,
    HasMixer,
    data_of,
    require_checkpoints_of,
    require_restored,
)
from dali_mixup.mixup import Mixup

NOT_FORWARDED = (
    "dataset",
    "collate_fn",
    "generator",
    "worker_init_fn",
)
"""What others rebuild a loader from; the loader that they build would not mix."""


class MixupLoader(HasMixer):
    """Wrap any loader so that it returns mixed batches.

    The loader may return ``[dict, ...]`` (as DALI's iterators), any mapping, ``(images,
    labels)``, ``[images, labels]``, either of them with further items, or images alone. The same
    form is returned, in new containers, with all other outputs untouched. ``len``, ``reset`` and
    other attributes are those of the loader, except for those from which a torch DataLoader is
    rebuilt (``dataset``, ``collate_fn``, ...): use ``loader.loader.dataset``.

    A loader that is created again over the same `mixup` continues where the last one stood.

    An epoch ends when the loader is exhausted. For programs that count batches instead, a pass that
    follows one of ``len(loader)`` batches begins the next epoch. A pass that is left early
    continues in the same epoch.

    Parameters
    ----------
    loader : iterable
    mixup : Mixup
    data_key : str or sequence of str, optional
        The names of the images: keys of a dict, indices of a tuple ("0"), or paths into nested
        containers ("inputs.image"). Several outputs share one plan; for CutMix they have one size.
        None: the first of two outputs; of more in a dict, the only one with at least 3 dimensions
        that is no mask.
    label_key : str or sequence of str, optional
        The name of the labels; ``()`` for none. None: the second of two outputs or of a tuple; of
        more in a dict, the only one named "label", "labels", "target", "targets" or "y". With
        several heads, the names are those of ``mixup.num_classes``, or the labels are one output,
        a dict or tuple.
    mask_key : str or sequence of str, optional
        The names of masks, as for :meth:`Mixup.mix_masks`, which share the plan of the images. They
        need ``Mixup(alpha=0, cutmix_alpha=1.0)``.
    target_key : str, optional
        Adds the mixed targets to a dict under this key and leaves the labels as they are. None: the
        targets take the place of the labels.
    plan_key : str, optional
        Adds the :class:`MixPlan` of each batch under this key.
    off_after_epoch : int >= 0, optional
        The number of epochs that are mixed. Later epochs are not.

    Raises
    ------
    TypeError, ValueError
        `loader` is not iterable, `mixup` is not a :class:`Mixup`, or, at the first batch, a key is
        not an output.

    Examples
    --------
    >>> loader = MixupLoader(existing_loader, Mixup(num_classes=1000))  # doctest: +SKIP
    """

    mixer: BatchMixer

    def __init__(
        self,
        loader: Iterable[Any],
        mixup: Mixup,
        *,
        data_key: str | Sequence[str] | None = None,
        label_key: str | Sequence[str] | None = None,
        mask_key: str | Sequence[str] | None = None,
        target_key: str | None = None,
        plan_key: str | None = None,
        off_after_epoch: int | None = None,
    ) -> None:
        if not isinstance(loader, Iterable):
            raise TypeError(f"loader: expected an iterable of batches, got {loader!r}")
        if getattr(loader, "mixer", None) is not None:
            raise ValueError(
                f"loader: expected one that does not mix, got a {type(loader).__name__} with a "
                "Mixup of its own; use it as it is"
            )
        self.loader = loader
        self._returned = self._returned_before = 0
        self.mixer = BatchMixer(
            mixup,
            data_key=data_key,
            label_key=label_key,
            mask_key=mask_key,
            target_key=target_key,
            plan_key=plan_key,
            off_after_epoch=off_after_epoch,
        )
        advise_augmentation(mixup, getattr(loader, "_pipes", ()), stacklevel=2)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next batch, here and in the loader or its sampler.

        Parameters
        ----------
        epoch : int >= 0
        """
        self.mixer.set_epoch(epoch)
        self._set_epoch_of_the_data(epoch)

    def _set_epoch_of_the_data(self, epoch: int) -> None:
        for part in [self.loader] if hasattr(self.loader, "set_epoch") else _samplers(self.loader):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        advise_sharding(self.loader, stacklevel=2)
        if self._is_counted_out():
            self.mixer.set_epoch(self.mixer.epoch + 1)
        self._returned, self._returned_before = self._returned_before, 0
        return _Pass(self, iter(self.loader))

    def __next__(self) -> Any:
        return self.next_from(self.loader)

    next = __next__

    def next_from(self, source: Any) -> Any:
        """Return the next batch of an iterator over the loader, mixed."""
        return self.mixer.next_from(lambda: next(source), self.loader)

    def _is_counted_out(self) -> bool:
        """Whether this pass has returned the last batch, and was not asked for more."""
        return bool(self.mixer.step) and self._returned == _length(self.loader)

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the run.

        Returns
        -------
        dict
            ``{"epoch", "step", "mixup", "changed", "dali", "data", "loader"}``. "mixup" holds the
            settings, "changed" those that were changed during the run, and "data" the batch size
            and the shards of DALI's readers. "dali" holds the checkpoints of a DALI iterator's
            pipelines, for :func:`dali_mixup.dali_checkpoints`, and is empty for other loaders.
            "loader" holds the state of a loader that has ``state_dict``, such as torchdata's
            StatefulDataLoader. It is None for a loader without a state: after a resume such a
            loader starts its epoch again. Without it, a state can be stored as JSON.

        Raises
        ------
        ValueError
            The loader is a DALI iterator over pipelines without ``enable_checkpointing=True``.
        """
        source: Any = self.loader
        checkpoints = getattr(source, "checkpoints", tuple)
        inner = source.state_dict() if _has_state(source) else None
        state = self.mixer.state_dict(checkpoints(), data=data_of(source), loader=inner)
        if inner is None and self._is_counted_out():
            state |= {"epoch": self.mixer.epoch + 1, "step": 0}
        return state

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> None:
        """Continue from a state.

        DALI's pipelines are restored when they are built, with ``checkpoint=``.

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
            the data differ, or DALI's pipelines were built from the checkpoints of another state.
            The message names the difference.
        RuntimeError
            The loader is a DALI iterator over pipelines that were not built from the state's
            checkpoints, or a loader with a state of its own that `state` does not hold, or the
            reverse.
        """
        require_restored(state, self.loader)
        if strict:
            require_checkpoints_of(state, self.loader)
        has_state = _has_state(self.loader)
        if has_state != (state["loader"] is not None):
            raise RuntimeError(
                f"state: expected {'the' if has_state else 'no'} state of the wrapped loader, got "
                f"{state['loader']!r}; wrap the same kind of loader as when it was saved"
            )
        self.mixer.load_state_dict(state, strict=strict, data=data_of(self.loader))
        self._set_epoch_of_the_data(state["epoch"])
        self._returned, self._returned_before = 0, state["step"]
        if has_state:
            self.loader.load_state_dict(state["loader"])  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __enter__(self) -> MixupLoader:
        self.loader.__enter__()  # type: ignore[attr-defined]
        return self

    def __exit__(self, *error: Any) -> Any:
        return self.loader.__exit__(*error)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "loader":  # asked for by copy and pickle
            raise AttributeError(name)
        if name in NOT_FORWARDED:
            raise AttributeError(
                f"MixupLoader has no attribute {name!r}, because a loader that is rebuilt from it "
                f"would not mix: use loader.loader.{name}; to skip batches or to shard the data, "
                "do so with the loader and wrap the result"
            )
        return getattr(self.loader, name)


class _Pass:
    """One pass over a loader. An error for one batch does not end it."""

    def __init__(self, loader: MixupLoader, source: Iterator[Any]) -> None:
        self._loader = loader
        self._source = source

    def __iter__(self) -> _Pass:
        return self

    def __next__(self) -> Any:
        batch = self._loader.next_from(self._source)
        self._loader._returned += 1
        return batch


def _has_state(loader: Any) -> bool:
    """Whether a loader has a state; Accelerate's have the methods, and not always a state."""
    if isinstance(loader, HasMixer):  # one that does not mix
        return False
    loader = getattr(loader, "base_dataloader", loader)
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def _samplers(loader: Any) -> list[Any]:
    """Those of a torch DataLoader; None where there is none."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    inner = getattr(batch_sampler, "sampler", None)
    return [getattr(loader, "sampler", None), batch_sampler, inner]


def _length(loader: Any) -> int:
    """Batches of a pass, with those that Accelerate's sampler skips; -1 where it is unknown."""
    skipped: int = getattr(getattr(loader, "batch_sampler", None), "skip_batches", 0)
    try:
        return len(loader) + skipped
    except (TypeError, ValueError):  # a DALI iterator without a size raises ValueError
        return -1
