"""The position of a run as plain data: a dict that can be stored as JSON.

Nothing is unpickled. A state is checked in full before any of it takes effect.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from dali_mixup.checks import KEY_LIMIT, require_int

KEYS = ("epoch", "step", "mixup", "changed", "dali", "data", "loader")
KEYS_OF_0_1 = {"epoch", "step", "mixup", "dali"}
LATER_KEYS = {"changed"}
"""Which states of older versions lack."""


def settings_of(mixup: Any) -> dict[str, Any]:
    """The settings of a Mixup, as JSON represents them, with the rank that keys its draws.

    The number of classes of several heads is a list of pairs, whose order counts.
    """
    settings = asdict(mixup) | {"rank": mixup.global_rank}
    del settings["enabled"], settings["_place"]
    if isinstance(settings["num_classes"], Mapping):
        settings["num_classes"] = list(settings["num_classes"].items())
    return json.loads(json.dumps(settings))  # type: ignore[no-any-return]


def changes(first: Any, now: Any) -> dict[str, Any]:
    """The settings in which a Mixup differs from the one that a loader was made with."""
    before = settings_of(first)
    return {name: value for name, value in settings_of(now).items() if value != before[name]}


def make_state(
    mixup: Any,
    epoch: int,
    step: int,
    checkpoints: Sequence[bytes] = (),
    *,
    changed: Mapping[str, Any] | None = None,
    data: Any = None,
    loader: Any = None,
) -> dict[str, Any]:
    """The state of a run at a step of an epoch.

    `changed` holds the settings that were changed since the loader was made with those of `mixup`.
    `checkpoints` are DALI's, one per pipeline. `data` describes the data and is compared when the
    state is loaded. `loader` is the state of the loader that is wrapped, if it has one.
    """
    return {
        "epoch": epoch,
        "step": step,
        "mixup": settings_of(mixup),
        "changed": dict(changed or {}),
        "dali": [base64.b64encode(checkpoint).decode("ascii") for checkpoint in checkpoints],
        "data": data,
        "loader": loader,
    }


def dali_checkpoints(state: Mapping[str, Any]) -> list[bytes]:
    """Return DALI's checkpoints in a loader's state, for the ``checkpoint=`` of the pipelines.

    In the state they are stored as base64, because JSON has no bytes.

    Parameters
    ----------
    state : dict
        From ``state_dict()`` of a loader.

    Returns
    -------
    list of bytes
        One per pipeline.

    Raises
    ------
    TypeError, ValueError
        `state` is not a state.
    """
    require_state(state)
    return [base64.b64decode(text, validate=True) for text in state["dali"]]


def require_state(state: Any) -> None:
    """Raise TypeError or ValueError unless `state` has the form that :func:`make_state` makes."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state: expected a dict from state_dict(), got {type(state).__name__}")
    if set(state) == KEYS_OF_0_1:
        raise ValueError(
            "state: of dali-mixup 0.1, which draws other plans; finish the run with that version, "
            "or begin it again"
        )
    if set(state) | LATER_KEYS != set(KEYS):
        raise ValueError(f"state: expected the keys {sorted(KEYS)}, got {sorted(map(str, state))}")
    require_int("state['epoch']", state["epoch"], least=0, below=KEY_LIMIT)
    require_int("state['step']", state["step"], least=0, below=KEY_LIMIT)
    if not isinstance(state["mixup"], Mapping):
        raise TypeError(f"state['mixup']: expected a dict of settings, got {state['mixup']!r}")
    later = state.get("changed", {})
    if not isinstance(later, Mapping) or not set(later) <= set(state["mixup"]):
        raise TypeError(f"state['changed']: expected a dict of settings, got {later!r}")
    texts = state["dali"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError("state['dali']: expected a list of str, one a pipeline")
    for i, text in enumerate(texts):
        try:
            base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"state['dali'][{i}]: expected base64: {error}") from error


def differences(saved: Mapping[str, Any], mixup: Any) -> list[str]:
    """The settings in which `mixup` differs from the saved one, each as a message.

    A setting that an older version did not have is compared by its default.
    """
    now = settings_of(mixup)
    before = {field.name: field.default for field in fields(mixup) if field.name in now} | {**saved}
    return [
        f"{name}: expected {before.get(name)!r} as saved, got {now.get(name)!r}"
        for name in sorted({*map(str, before), *now})
        if before.get(name) != now.get(name)
    ]


def read_position(state: Any, mixup: Any, *, strict: bool, data: Any = None) -> tuple[int, int]:
    """The epoch and step of a state.

    Raises
    ------
    TypeError, ValueError
        `state` is not a state; or `strict` is set and the settings or the data differ.
    """
    require_state(state)
    if strict and (found := differences(state["mixup"], mixup)):
        raise ValueError(
            "state: of a run with other settings, which would draw other plans: "
            f"{'; '.join(found)}; begin with the settings of the run, or give strict=False to go "
            "on with the ones of now"
        )
    if strict and (state["data"] is None) != (data is None):
        kinds = "a loader", "a Mixup that is called"
        saved, now = kinds if data is None else kinds[::-1]
        raise ValueError(f"state: expected one of {now}, got one of {saved}")
    if strict and state["data"] != data:
        raise ValueError(
            f"state: of a run with other data: expected {state['data']} as saved, got {data}; "
            "give strict=False to go on with the data of now"
        )
    return int(state["epoch"]), int(state["step"])
