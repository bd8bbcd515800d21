"""The labels of models with several heads: a dict or a tuple, one for each head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dali_mixup.checks import require_int

Classes = int | None | Mapping[str, int | None]
"""Of a Mixup, whose mappings are dicts."""


def checked_classes(num_classes: Any) -> Classes:
    """The `num_classes` of a Mixup, in Python's own types.

    Raises
    ------
    TypeError, ValueError
        It is no int above 0, None or a dict of these, by names.
    """
    if not isinstance(num_classes, Mapping):
        return None if num_classes is None else require_int("num_classes", num_classes, least=1)
    if not num_classes or not all(isinstance(name, str) for name in num_classes):
        raise TypeError(
            "num_classes: expected a dict from the names of heads to their numbers of classes, "
            f"such as {{'make': 196}}, got {num_classes!r}"
        )
    return {
        name: None if count is None else require_int(f"num_classes[{name!r}]", count, least=1)
        for name, count in num_classes.items()
    }


def classes_of_heads(num_classes: Classes) -> tuple[int | None, ...]:
    """The number of classes of each head."""
    return tuple(num_classes.values()) if isinstance(num_classes, dict) else (num_classes,)  # type: ignore[return-value]


def named_heads(num_classes: Classes) -> tuple[str, ...]:
    """The names of the heads, where there are several."""
    return tuple(num_classes) if isinstance(num_classes, dict) else ()


def split(labels: Any, num_classes: Classes) -> Sequence[Any]:
    """The labels of each head, in the order of `num_classes`.

    Raises
    ------
    TypeError, ValueError
        `labels` and `num_classes` are not of the same heads.
    """
    if not isinstance(num_classes, dict):
        if isinstance(labels, (Mapping, tuple, list)):
            raise TypeError(
                f"labels: expected a tensor or an array beside num_classes={num_classes}, got a "
                f"{type(labels).__name__}; several heads have num_classes={{name: int, ...}}"
            )
        return (labels,)
    labels = _named(labels)
    if isinstance(labels, Mapping):
        if set(labels) != set(num_classes):
            raise ValueError(
                f"labels: expected the heads {list(num_classes)} of num_classes, got {list(labels)}"
            )
        return [labels[name] for name in num_classes]
    if isinstance(labels, (tuple, list)):
        if len(labels) != len(num_classes):
            raise ValueError(
                f"labels: expected {len(num_classes)}, one for each of {list(num_classes)}, got "
                f"{len(labels)}"
            )
        return labels
    raise TypeError(
        f"labels: expected a dict or a tuple of the heads {list(num_classes)}, got "
        f"{type(labels).__name__}; in a loader, num_classes has the names of its outputs"
    )


def in_the_form_of(labels: Any, targets: list[Any], num_classes: Classes) -> Any:
    """The targets of all heads, in the order of `num_classes`, in the form of their labels."""
    if isinstance(num_classes, dict) and isinstance(_named(labels), Mapping):
        named = dict(zip(num_classes, targets, strict=True))
        return named if isinstance(labels, Mapping) else type(labels)(**named)
    return tuple(targets) if isinstance(labels, (tuple, list)) else targets[0]


def _named(labels: Any) -> Any:
    """A namedtuple as a dict of its fields; other labels as they are."""
    return labels._asdict() if hasattr(labels, "_asdict") else labels
