"""Mixes the batches of a loader and counts epochs and steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from dali_mixup.advice import LabelsSeen
from dali_mixup.backends.heads import classes_of_heads, named_heads, split
from dali_mixup.backends.inputs import Images, as_images
from dali_mixup.backends.masks import mask_size
from dali_mixup.backends.threads import in_a_loader
from dali_mixup.checks import KEY_LIMIT, require_int
from dali_mixup.loaders.outputs import names_of, read, replaced
from dali_mixup.mixup import Mixup, Position, raise_reported
from dali_mixup.output import OutputFormat
from dali_mixup.state import changes, dali_checkpoints, make_state, read_position

LABEL_NAMES = ("label", "labels", "target", "targets", "y")
_KEY_OPTIONS = "data_key, label_key, mask_key"


class BatchMixer:
    """Mixes batch after batch and counts epochs and steps.

    It begins where the last loader over the same `mixup` stood.

    Parameters
    ----------
    mixup : Mixup
    data_key : str or sequence of str, optional
        The names of the images. Several outputs share one plan. None: the first of two outputs; of
        more, the only one with at least 3 dimensions.
    label_key : str or sequence of str, optional
        The name of the labels; of several heads, the names of `mixup.num_classes`; an empty tuple
        for none. None: the heads' names where there are such outputs; else the second of two
        outputs; of more, the only one with a usual name (`LABEL_NAMES`).
    mask_key : str or sequence of str, optional
        The names of masks, which share the plan of the images.
    target_key : str, optional
        The name under which to add the mixed targets, beside the labels. None: in their place.
    plan_key : str, optional
        The name under which to add the :class:`MixPlan`. None: it is not returned.
    off_after_epoch : int >= 0, optional
        The number of epochs that are mixed. Later epochs are not.
    """

    def __init__(
        self,
        mixup: Mixup,
        *,
        data_key: str | Sequence[str] | None = None,
        label_key: str | Sequence[str] | None = None,
        mask_key: str | Sequence[str] | None = None,
        target_key: str | None = None,
        plan_key: str | None = None,
        off_after_epoch: int | None = None,
    ) -> None:
        self.data_keys = _names("data_key", data_key)
        self.mask_keys = _names("mask_key", mask_key)
        self.label_keys = None if label_key is None else _names("label_key", label_key)
        self._require_fit(mixup)
        self._mixup = self._first_mixup = mixup
        self.target_key = None if target_key is None else _name("target_key", target_key)
        self.plan_key = None if plan_key is None else _name("plan_key", plan_key)
        if target_key is not None and target_key == plan_key:
            raise ValueError(f"target_key, plan_key: expected two names, got {plan_key!r} for both")
        if target_key is not None and self.label_keys == ():
            raise ValueError("target_key: expected labels beside it, got label_key=()")
        if off_after_epoch is not None:
            require_int("off_after_epoch", off_after_epoch, least=0)
        self.off_after_epoch = off_after_epoch
        self._names_found: tuple[list[str], bool] | None = None
        self._labels_found: tuple[str, ...] = ()
        self.epoch, self.step = mixup._place.next_loader_at
        self._labels_seen: list[LabelsSeen] | None = [
            LabelsSeen() for _ in classes_of_heads(mixup.num_classes)
        ]
        self._epoch_was_seen = False

    @property
    def mixup(self) -> Mixup:
        """The settings; those that are assigned hold from the next batch on."""
        return self._mixup

    @mixup.setter
    def mixup(self, mixup: Mixup) -> None:
        self._require_fit(mixup)
        if type(mixup) is not type(self._first_mixup):
            raise TypeError(
                f"mixup: expected dataclasses.replace(loader.mixup, ...), got {mixup!r}, which is "
                "of another class"
            )
        self._mixup = mixup
        self._names_found = None
        self.go_to(self.epoch, self.step)

    def _require_fit(self, mixup: Mixup) -> None:
        """Raise TypeError or ValueError unless it is a Mixup that fits the keys."""
        if not isinstance(mixup, Mixup):
            raise TypeError(
                f"mixup: expected a Mixup, got {mixup!r}; those of compat have theirs in .mixup"
            )
        keys, heads = self.label_keys or (), mixup.num_classes
        if len(keys) > 1 and not (isinstance(heads, Mapping) and set(heads) == set(keys)):
            raise ValueError(
                f"num_classes: expected a dict with the keys {keys} of label_key, got {heads}"
            )
        if self.mask_keys and mixup.alpha:
            raise ValueError(
                f"mixup: expected alpha=0 beside mask_key={self.mask_keys}, got "
                f"alpha={mixup.alpha}; the classes of a mask have no weighted mean. Set "
                "Mixup(alpha=0, cutmix_alpha=1.0)"
            )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next batch. A new epoch starts at step 0."""
        require_int("epoch", epoch, least=0, below=KEY_LIMIT)
        if epoch != self.epoch:
            self.go_to(epoch, 0)

    def go_to(self, epoch: int, step: int) -> None:
        """Set the position of the next batch."""
        self.epoch, self.step = epoch, step
        self.mixup._place.next_loader_at = (epoch + 1, 0) if step else (epoch, 0)

    def next_from(self, fetch: Callable[[], Any], source: Any = None) -> Any:
        """Fetch a batch, mix it and count it.

        Where `source` is a DALI iterator, the epoch ends with its last batch. Elsewhere it ends
        with the StopIteration of `fetch`, which is passed on. What earlier batches have to report
        is raised before `fetch` is called, so that no batch is lost.
        """
        self._advise()
        raise_reported()
        try:
            batch = fetch()
        except StopIteration:
            if self.step:
                self._end_epoch()
                self._advise()
            raise
        mark = in_a_loader.set(True)
        try:
            mixed = self._mix(batch, getattr(source, "output_map", None))
        finally:
            in_a_loader.reset(mark)
        self.go_to(self.epoch, self.step + 1)
        if _epoch_is_over(source):
            self._end_epoch()
        return mixed

    def _end_epoch(self) -> None:
        self.go_to(self.epoch + 1, 0)
        self._epoch_was_seen = True

    def _advise(self) -> None:
        """Judge the labels of the first epoch, once it is over and no batch is in hand."""
        seen = self._labels_seen
        if self._epoch_was_seen and seen is not None:
            self._labels_seen = None
            for count, labels in zip(classes_of_heads(self.mixup.num_classes), seen, strict=False):
                if count is not None:
                    labels.advise(count, stacklevel=4)

    def _mix(self, batch: Any, output_map: Sequence[str] | None) -> Any:
        if isinstance(batch, list) and batch and all(isinstance(part, Mapping) for part in batch):
            return [self._mix_one(part, output_map, i) for i, part in enumerate(batch)]
        return self._mix_one(batch, output_map, 0)

    def _mix_one(self, batch: Any, output_map: Sequence[str] | None, stream: int) -> Any:
        names = names_of(batch) if output_map is None else output_map
        by_order = not isinstance(batch, Mapping)
        if (names, by_order) != self._names_found:
            self._labels_found = self.find_labels(names, by_order=by_order)
            self._names_found = list(names), by_order
        label_keys = self._labels_found
        first, *others = self._find_images(batch, names, label_keys)
        images = self._images(self._read(batch, first, names))
        heads = {key: self._read(batch, key, names) for key in label_keys}
        several = bool(heads) and heads.keys() == set(named_heads(self.mixup.num_classes))
        labels: Any = heads if several else next(iter(heads.values()), None)

        plan = self.mixup.plan_at(
            Position(self.epoch, self.step, stream, self.mixup.worker()),
            images,
            labels,
            mixed=self.off_after_epoch is None or self.epoch < self.off_after_epoch,
        )
        mixed: dict[str, Any] = {}
        mixed[first], targets = self.mixup.mix(images, labels, plan)
        if self.target_key is not None and heads:
            mixed[self.target_key] = targets
        elif heads:
            mixed |= targets if several else {label_keys[0]: targets}
        elif self.target_key is not None:
            raise ValueError(
                f"target_key: expected labels beside it, got the outputs {list(names)}"
            )
        sizes = {first: images.size} if plan.box is not None else {}
        for name in others:
            view = self._images(self._read(batch, name, names))
            if sizes:
                sizes[name] = view.size
                _require_one_size("data_key", sizes, "resize them, or set cutmix_alpha=0")
            mixed[name], _ = self.mixup.mix(view, None, plan)
        for name in self.mask_keys:
            mask = self._read(batch, name, names)
            if sizes:
                sizes[name] = mask_size(tuple(mask.shape))
                _require_one_size("mask_key", sizes, "resize the masks by the nearest neighbour")
            mixed[name] = self.mixup.mix_masks(mask, plan)
        if self.plan_key is not None:
            mixed[self.plan_key] = plan
        if self._labels_seen is not None and self.mixup.enabled and labels is not None:
            heads_seen = zip(self._labels_seen, split(labels, self.mixup.num_classes), strict=False)
            for seen, part in heads_seen:
                seen.add(part)
        return replaced(batch, mixed)

    def _images(self, images: Any) -> Images:
        return as_images(images, self._mixup.backend, self._mixup.layout)

    def find_labels(self, names: Sequence[str], *, by_order: bool = False) -> tuple[str, ...]:
        """The names of the labels; empty without labels.

        Parameters
        ----------
        names : sequence of str
            Of the batch's outputs.
        by_order : bool
            The batch is ``(images, labels, *rest)``.

        Raises
        ------
        ValueError
            A name is not among the outputs, is taken twice, or has to be given.
        """
        self._require_names(names, by_order=by_order)
        if self.label_keys is not None:
            return self.label_keys
        heads = named_heads(self.mixup.num_classes)
        missing = [name for name in heads if not _is_among(name, names)]
        if heads and not missing:
            return heads
        if len(missing) < len(heads):
            raise ValueError(
                f"num_classes: expected outputs with the names of its heads, got {list(names)} "
                f"without {missing[0]!r}"
            )
        given = (*self.data_keys, *self.mask_keys)
        others = [name for name in names if name not in given]
        if not self.data_keys and (by_order or len(names) == 2 or len(others) == 1):
            del others[:1]  # the images
        if not others:
            return ()
        if by_order:
            return (names[1] if names[1] in others else others[0],)
        if len(names) == 2 and not any("." in name for name in given):
            return (others[0],)
        usual = [name for name in others if name.lower() in LABEL_NAMES]
        if len(usual) == 1:
            return (usual[0],)
        raise ValueError(
            f"label_key: expected the name of the labels among {list(names)}, got none; pass "
            "label_key='...', or label_key=() where there are no labels"
        )

    def _require_names(self, names: Sequence[str], *, by_order: bool) -> None:
        if not names:
            raise ValueError("data_key, label_key: expected outputs, got none")
        given = [*self.data_keys, *(self.label_keys or ()), *self.mask_keys]
        for name in given:
            if not _is_among(name, names):
                raise ValueError(
                    f"{_KEY_OPTIONS}: expected names among {list(names)}, got {name!r}"
                )
        if twice := sorted({name for name in given if given.count(name) > 1}):
            raise ValueError(
                f"{_KEY_OPTIONS}: expected different outputs, got {twice[0]!r} twice; the outputs "
                f"are {list(names)}"
            )
        for option in ("target_key", "plan_key"):
            name = getattr(self, option)
            if name is not None and by_order:
                raise TypeError(f"{option}: expected a loader of dicts, which take a new name")
            if name is not None and name.partition(".")[0] in names:
                raise ValueError(f"{option}: expected a new name, got the output {name!r}")

    def _find_images(
        self, batch: Any, names: Sequence[str], label_keys: Sequence[str]
    ) -> Sequence[str]:
        if self.data_keys:
            return self.data_keys
        others = [name for name in names if name not in (*label_keys, *self.mask_keys)]
        if len(others) == 1 or len(names) <= 2:
            return others[:1]
        images = [name for name in others if getattr(read(batch, name), "ndim", 0) >= 3]
        if len(images) == 1 or (not images and not isinstance(batch, Mapping)):
            return images or others[:1]
        raise ValueError(
            f"data_key: expected the names of the images among {others}, got none, and "
            f"{images or 'no output'} could be images or masks; pass data_key='...', or several "
            "names, and masks as mask_key"
        )

    def _read(self, batch: Any, name: str, names: Sequence[str]) -> Any:
        try:
            return read(batch, name)
        except KeyError:
            raise ValueError(
                f"{_KEY_OPTIONS}: expected names among {list(names)}, got {name!r}"
            ) from None

    def state_dict(
        self, checkpoints: Sequence[bytes] = (), *, data: Any = None, loader: Any = None
    ) -> dict[str, Any]:
        """Return the position of the run, with what :func:`make_state` takes beside it."""
        later = changes(self._first_mixup, self.mixup)
        return make_state(
            self._first_mixup, self.epoch, self.step, checkpoints, changed=later, data=data,
            loader=loader,
        )  # fmt: skip

    def load_state_dict(
        self, state: Mapping[str, Any], *, strict: bool = True, data: Any = None
    ) -> None:
        """Continue from a state, with `strict` also with the settings that were changed in it."""
        position = read_position(state, self._first_mixup, strict=strict, data=data)
        if strict:
            mixup = _changed(self._first_mixup, state.get("changed", {}))
            mixup.enabled = self.mixup.enabled
            self.mixup = mixup
        self.go_to(*position)


class HasMixer:
    """A loader whose batches a :class:`BatchMixer` mixes; None where it mixes none."""

    mixer: Any

    @property
    def mixup(self) -> Mixup | None:
        """The settings. Those that are assigned hold from the next batch on.

        ``loader.mixup = dataclasses.replace(loader.mixup, alpha=0.4)`` changes settings during a
        run, which goes on at its epoch and step. A state holds the change, and a run that is
        resumed from it goes on with it.
        """
        return None if self.mixer is None else self.mixer.mixup

    @mixup.setter
    def mixup(self, mixup: Mixup) -> None:
        if self.mixer is None:
            raise ValueError("mixup: expected an iterator that was made with a Mixup, got None")
        self.mixer.mixup = mixup

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SETTINGS and type(self).__module__.startswith("dali_mixup."):
            raise AttributeError(f"{name}: not a setting of a loader; {_SETTINGS[name]}")
        super().__setattr__(name, value)


_SETTINGS = {
    **{
        field.name: f"loader.mixup = dataclasses.replace(loader.mixup, {field.name}=...) changes it"
        for field in fields(Mixup)
        if field.compare
    },
    "off_after_epoch": "give it when the loader is made",
    **dict.fromkeys(("enabled", "mixup_enabled"), "assign loader.mixup.enabled"),
}
"""What has no effect when it is assigned to a loader, and what has; subclasses may have them."""


def _changed(mixup: Mixup, settings: Mapping[str, Any]) -> Mixup:
    """The Mixup with these settings of a state in the place of its own."""
    values = dict(settings)
    if values.get("output") is not None:
        values["output"] = OutputFormat(**values["output"])
    if isinstance(values.get("num_classes"), list):
        values["num_classes"] = dict(values["num_classes"])
    return replace(mixup, **values) if values else mixup


def _names(option: str, keys: Any) -> tuple[str, ...]:
    if keys is None:
        return ()
    return tuple(_name(option, key) for key in ((keys,) if isinstance(keys, (str, int)) else keys))


def _require_one_size(option: str, sizes: Mapping[str, tuple[int, int]], advice: str) -> None:
    """A box that fits one size of images is another share of another size."""
    (first, size), *_, (name, other) = sizes.items()
    if size != other:
        raise ValueError(
            f"{option}: expected images of one size for CutMix, got {size} for {first!r} and "
            f"{other} for {name!r}; {advice}"
        )


def _is_among(name: str, names: Sequence[str]) -> bool:
    """Whether a batch with these outputs can have it; what is in a container shows later."""
    return name in names or name.partition(".")[0] in names


def _name(option: str, key: Any) -> str:
    """The name of an output; an int is the index of an item of a tuple."""
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    if not isinstance(key, str) or not key:
        raise TypeError(f"{option}: expected the name of an output, got {key!r}")
    return key


def _epoch_is_over(source: Any) -> bool:
    """Whether a DALI iterator has returned the last batch of its epoch.

    It does not always say so by StopIteration: not where the consumer counts the batches and
    resets, nor where it is restored from a checkpoint made there.
    """
    if not hasattr(source, "_advance_and_check_drop_last"):
        return False
    return 0 < source._size <= source._counter or bool(
        source._advance_and_check_drop_last(dry_run=True, end_iteration=False)
    )


def data_of(loader: Any) -> dict[str, Any]:
    """What a state is compared by: the batch size, and the size and shard of each DALI reader."""
    batch_size = getattr(loader, "batch_size", None)
    pipelines = getattr(loader, "_pipes", ())
    return {
        "batch_size": batch_size if isinstance(batch_size, int) else None,
        "readers": [pipeline.reader_meta() for pipeline in pipelines],
    }


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


def require_checkpoints_of(state: Any, iterator: Any) -> None:
    """Raise ValueError where pipelines were built from the checkpoints of another state."""
    built_from = [getattr(each, "_checkpoint", None) for each in getattr(iterator, "_pipes", ())]
    for i, (checkpoint, saved) in enumerate(zip(built_from, dali_checkpoints(state), strict=False)):
        if isinstance(checkpoint, bytes) and checkpoint != saved:
            raise ValueError(
                f"state: expected the checkpoint that pipeline {i} was built from, got another "
                "one; build it with checkpoint=dali_checkpoints(state)[i], or give strict=False"
            )
