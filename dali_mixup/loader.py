"""Mixing what a loader hands out, whatever made it: the core of the iterators, and a wrapper."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from dali_mixup.mixup import Mixup
from dali_mixup.plan import MixPlan, unmixed


class BatchMixer:
    """Mixes batch after batch, counting where the run stands.

    Parameters
    ----------
    mixup : Mixup
    data_key : str or sequence of str, optional
        Images in a dict's outputs; several share one plan. None: the first output.
    label_key : str, optional
        Labels there. None: the last output.
    plan_key : str, optional
        Where to put the :class:`MixPlan`; None does not hand it out.
    off_after_epoch : int, optional
        Number of epochs that are mixed; the later ones are not.
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
            raise TypeError(f"mixup: expected a Mixup, got {mixup!r}")
        self.mixup = mixup
        self.data_keys = (data_key,) if isinstance(data_key, str) else data_key
        self.label_key = label_key
        self.plan_key = plan_key
        self.off_after_epoch = off_after_epoch
        self.epoch = 0
        self.step = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next batch is of; a new one starts at step 0."""
        if epoch != self.epoch:
            self.epoch, self.step = epoch, 0

    def next_from(self, fetch: Callable[[], Any], output_map: Sequence[str] | None = None) -> Any:
        """Fetch a batch and mix it; the fetch's StopIteration ends the epoch and passes on."""
        try:
            batch = fetch()
        except StopIteration:
            if self.step:
                self.epoch, self.step = self.epoch + 1, 0
            raise
        mixed = self._mix(batch, output_map)
        self.step += 1
        return mixed

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
            return make(self.mixup(images, labels, plan=self._plan(images, 0)))
        raise TypeError(
            "batch: expected [dict, ...], dict, (images, labels) or [images, labels], "
            f"got {_describe(batch)}"
        )

    def _mix_dict(
        self, outputs: dict[str, Any], output_map: Sequence[str] | None, stream: int
    ) -> dict[str, Any]:
        (first, *others), label_key = self.keys(list(outputs) if output_map is None else output_map)
        plan = self._plan(outputs[first], stream)
        mixed = dict(outputs)
        mixed[first], mixed[label_key] = self.mixup(outputs[first], outputs[label_key], plan=plan)
        for key in others:
            mixed[key], _ = self.mixup(outputs[key], None, plan=plan)
        if self.plan_key is not None:
            mixed[self.plan_key] = plan
        return mixed

    def keys(self, output_map: Sequence[str]) -> tuple[Sequence[str], str]:
        """The names of the images and of the labels among the outputs; ValueError if missing."""
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
        if self.off_after_epoch is not None and self.epoch >= self.off_after_epoch:
            return unmixed(images.shape[0])
        return self.mixup.plan_for(images, epoch=self.epoch, step=self.step, stream=stream)


def _describe(batch: Any) -> str:
    if isinstance(batch, (tuple, list)):
        return f"{type(batch).__name__} of ({', '.join(type(part).__name__ for part in batch)})"
    return type(batch).__name__


class MixupLoader:
    """Any loader, its batches mixed as they are handed out.

    Takes what hands out ``[dict, ...]`` (DALI's iterators), ``dict``, ``(images, labels)`` or
    ``[images, labels]`` and gives back the same form in fresh containers. ``len``, ``reset``,
    ``size``, ``batch_size`` and all else are the loader's own. An epoch ends when the loader does;
    a pass that is left half-way counts on in the same epoch.

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

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next batch is of, here and in the loader where it wants to know."""
        self.mixer.set_epoch(epoch)
        if hasattr(self.loader, "set_epoch"):
            self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        source = iter(self.loader)
        while True:
            try:
                batch = self._next_from(source)
            except StopIteration:
                return
            yield batch

    def __next__(self) -> Any:
        return self._next_from(self.loader)

    next = __next__

    def _next_from(self, source: Any) -> Any:
        return self.mixer.next_from(lambda: next(source), getattr(self.loader, "output_map", None))

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __enter__(self) -> MixupLoader:
        self.loader.__enter__()  # type: ignore[attr-defined]
        return self

    def __exit__(self, *error: Any) -> Any:
        return self.loader.__exit__(*error)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # not there yet: a copy or a pickle in the making
            raise AttributeError(name)
        return getattr(self.loader, name)
