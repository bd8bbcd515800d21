"""A wrapper that mixes the batches of any loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dali_mixup.advice import advise_augmentation
from dali_mixup.loaders.mixer import BatchMixer, require_restored
from dali_mixup.mixup import Mixup


class MixupLoader:
    """Wrap any loader so that it hands out mixed batches.

    The loader may hand out ``[dict, ...]`` (as DALI's iterators), ``dict``, ``(images, labels)`` or
    ``[images, labels]``. The same form is returned, in new containers. ``len``, ``reset`` and all
    other attributes are those of the loader.

    An epoch ends when the loader is exhausted. For programs that count batches instead, it ends
    with the pass that follows ``len(loader)`` batches. A pass that is left early continues in the
    same epoch.

    Parameters
    ----------
    loader : iterable
    mixup : Mixup
    data_key : str or sequence of str, optional
        The keys of the images, in loaders of dicts. Several outputs share one plan. None: the first
        output.
    label_key : str, optional
        The key of the labels. None: the last output.
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
        """Set the epoch of the next batch, here and in a loader that has ``set_epoch``.

        Parameters
        ----------
        epoch : int >= 0
        """
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
        """Return the next batch of an iterator over the loader, mixed."""
        return self.mixer.next_from(lambda: next(source), self.loader)

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the run.

        Returns
        -------
        dict
            ``{"epoch", "step", "mixup", "dali"}``, which can be stored as JSON. "mixup" holds the
            settings. "dali" holds the checkpoints of a DALI iterator's pipelines, for
            :func:`dali_mixup.dali_checkpoints`. It is empty for other loaders, whose own state has
            to be saved beside this one.

        Raises
        ------
        ValueError
            The loader is a DALI iterator over pipelines without ``enable_checkpointing=True``.
        """
        checkpoints = getattr(self.loader, "checkpoints", tuple)
        return self.mixer.state_dict(checkpoints())

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
            `state` is not a state; or `strict` is set and the settings differ. The message names
            them.
        RuntimeError
            The loader is a DALI iterator over pipelines that were not built from the state's
            checkpoints.
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
    """One pass over a loader. An error for one batch does not end it."""

    def __init__(self, loader: MixupLoader, source: Iterator[Any]) -> None:
        self._loader = loader
        self._source = source

    def __iter__(self) -> _Pass:
        return self

    def __next__(self) -> Any:
        return self._loader.next_from(self._source)


def _length(loader: Any) -> int:
    """The loader's length, or 0 where it has none."""
    try:
        return len(loader)
    except TypeError:
        return 0
