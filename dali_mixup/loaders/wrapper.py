"""Any loader, its batches mixed as they are handed out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dali_mixup.advice import advise_augmentation
from dali_mixup.loaders.mixer import BatchMixer, require_restored
from dali_mixup.mixup import Mixup


class MixupLoader:
    """Any loader, its batches mixed as they are handed out.

    Takes what hands out ``[dict, ...]`` (DALI's iterators), ``dict``, ``(images, labels)`` or
    ``[images, labels]`` and gives back the same form in fresh containers. ``len``, ``reset``,
    ``size``, ``batch_size`` and all else are the loader's own. An epoch ends when the loader does,
    or, for consumers that count batches, with the pass that follows ``len(loader)`` of them; a pass
    that is left half-way counts on in the same epoch.

    Parameters
    ----------
    loader : iterable
    mixup : Mixup
    data_key, label_key, plan_key, off_after_epoch
        As :class:`BatchMixer` takes them.

    Examples
    --------
    >>> loader = MixupLoader(existing_loader, Mixup(num_classes=1000))  # doctest: +SKIP
    """

    def __init__(
        self,
        loader: Iterable[Any],
        mixup: Mixup,
        *,
        data_key: str | Sequence[str] | None = None,
        label_key: str | None = None,
        plan_key: str | None = None,
        off_after_epoch: int | None = None,
    ) -> None:
        if not isinstance(loader, Iterable):
            raise TypeError(f"loader: expected an iterable of batches, got {loader!r}")
        self.loader = loader
        self.mixer = BatchMixer(
            mixup,
            data_key=data_key,
            label_key=label_key,
            plan_key=plan_key,
            off_after_epoch=off_after_epoch,
        )
        advise_augmentation(mixup.alpha, getattr(loader, "_pipes", ()), stacklevel=2)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next batch is of, here and in the loader where it wants to know."""
        self.mixer.set_epoch(epoch)
        if hasattr(self.loader, "set_epoch"):
            self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        if 0 < _length(self.loader) <= self.mixer.step:
            self.mixer.set_epoch(self.mixer.epoch + 1)
        return _Pass(self, iter(self.loader))

    def __next__(self) -> Any:
        return self.next_from(self.loader)

    next = __next__

    def next_from(self, source: Any) -> Any:
        """The next batch of an iterator over the loader, mixed."""
        return self.mixer.next_from(lambda: next(source), self.loader)

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands: ``{"epoch", "step", "mixup", "dali"}``, JSON-able.

        "mixup" holds the settings, to compare; "dali" the checkpoints of a DALI iterator's
        pipelines, for :func:`dali_mixup.dali_checkpoints`; it is empty for any other loader, whose
        own state has to be saved beside this one.

        Raises
        ------
        ValueError
            DALI pipelines without ``enable_checkpointing=True``.
        """
        checkpoints = getattr(self.loader, "checkpoints", tuple)
        return self.mixer.state_dict(checkpoints())

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> None:
        """Go on where a state stands.

        DALI's pipelines are restored when they are built, by ``checkpoint=``.

        Raises
        ------
        TypeError, ValueError
            This is no state; or, with `strict`, one of other settings, which are named.
        RuntimeError
            A DALI iterator over pipelines that were not built from the state's checkpoints.
        """
        require_restored(state, self.loader)
        self.mixer.load_state_dict(state, strict=strict)

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
        return getattr(self.loader, name)


class _Pass:
    """One pass over a loader; a batch that is refused does not end it."""

    def __init__(self, loader: MixupLoader, source: Iterator[Any]) -> None:
        self._loader = loader
        self._source = source

    def __iter__(self) -> _Pass:
        return self

    def __next__(self) -> Any:
        return self._loader.next_from(self._source)


def _length(loader: Any) -> int:
    """0 where the loader does not say."""
    try:
        return len(loader)
    except TypeError:
        return 0
