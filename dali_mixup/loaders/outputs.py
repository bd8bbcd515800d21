"""The outputs of a batch by name: read, and replaced in new containers.

An output of a mapping is named by its key, one of a tuple or list by its index ("0", "1", ...), and
one inside a nested container by both, joined by a dot ("inputs.image"). A batch that is no
container is one output, named "".
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from copy import copy
from typing import Any


def names_of(batch: Any) -> list[str]:
    """The names of the outputs of a batch, without those inside nested containers."""
    if isinstance(batch, Mapping):
        return [str(key) for key in batch]
    if isinstance(batch, (tuple, list)):
        return [str(index) for index in range(len(batch))]
    return [""]


def read(batch: Any, name: str) -> Any:
    """The output of this name; KeyError where there is none."""
    if not _is_container(batch):
        if name:
            raise KeyError(name)
        return batch
    key, inner = _split(batch, name)
    return read(batch[key], inner) if inner else batch[key]


def replaced(batch: Any, outputs: Mapping[str, Any]) -> Any:
    """A copy of the batch with these outputs in the place of its own; mappings take new names."""
    if not _is_container(batch):
        return outputs[""]
    changed: dict[Any, Any] = {}
    nested: dict[Any, dict[str, Any]] = {}
    for name, value in outputs.items():
        try:
            key, inner = _split(batch, name)
        except KeyError:
            key, inner = name, ""
        if inner:
            nested.setdefault(key, {})[inner] = value
        else:
            changed[key] = value
    changed |= {key: replaced(batch[key], inside) for key, inside in nested.items()}
    return _with(batch, changed)


def _is_container(batch: Any) -> bool:
    return isinstance(batch, (dict, tuple, list, Mapping))


def _split(container: Any, name: str) -> tuple[Any, str]:
    """The container's own key, and the name inside of what is there."""
    if isinstance(container, dict) and name in container:
        return name, ""
    keys = dict(zip(names_of(container), _keys(container), strict=True))
    if name in keys:
        return keys[name], ""
    head, _, inner = name.partition(".")
    if not inner or head not in keys:
        raise KeyError(name)
    return keys[head], inner


def _keys(container: Any) -> Any:
    return container if isinstance(container, Mapping) else range(len(container))


def _with(container: Any, changed: dict[Any, Any]) -> Any:
    if type(container) is dict:
        return container | changed
    if isinstance(container, MutableMapping):
        fresh = copy(container)
        for key, value in changed.items():
            before = container.get(key)
            fresh[key] = value
            if container.get(key) is not before:
                container[key] = before
                raise TypeError(
                    "batch: expected a mapping that copy.copy() copies, got a "
                    f"{type(container).__name__}, whose copy shares its items; return dicts"
                )
        return fresh
    if isinstance(container, Mapping):
        return type(container)({**container, **changed})  # type: ignore[call-arg]
    values = [changed.get(index, value) for index, value in enumerate(container)]
    make: Any = getattr(container, "_make", type(container))
    return make(values)
