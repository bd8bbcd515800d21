"""The statistics of the benchmarks."""

import gc
from itertools import count

import pytest

from dali_mixup.cli.measure import interleaved


def measure(methods, **settings):
    defaults = {"rounds": 4, "warm_up": 0, "unit": "ms", "bases": {"copy": "copy"}}
    return interleaved(methods, **(defaults | settings))


def falling(*values):
    """A method whose measurements are these, one after the other."""
    return iter(values).__next__


def test_medians_quartiles_and_ratios_are_those_of_the_rounds():
    copy, ours = measure(
        {"copy": falling(1, 2, 3, 4, 5), "ours": falling(2, 8, 3, 4, 50)}, rounds=5
    )

    assert copy == {"method": "copy", "median_ms": 3, "iqr_ms": 2, "ratio_to_copy": 1}
    assert ours == {"method": "ours", "median_ms": 4, "iqr_ms": 5, "ratio_to_copy": 2}


def test_warm_up_does_not_count():
    (copy,) = measure({"copy": falling(900, 800, 1, 2, 3)}, warm_up=2, rounds=3)

    assert (copy["median_ms"], copy["iqr_ms"]) == (2, 1)


def test_each_round_begins_with_another_method():
    order = []
    methods = {name: lambda name=name: order.append(name) or 1.0 for name in "abc"}

    measure(methods, warm_up=1, rounds=3, bases={})

    assert "".join(order) == "abcbcacababc"


def test_a_measurement_belongs_to_its_method_whatever_its_turn():
    first, second = measure({"copy": lambda: 1.0, "ours": lambda: 5.0})

    assert (first["median_ms"], second["median_ms"]) == (1, 5)


def test_a_method_that_is_not_there_has_none_in_every_column():
    _, missing = measure({"copy": lambda: 1.0, "timm": None})

    assert missing == {"method": "timm", "median_ms": None, "iqr_ms": None, "ratio_to_copy": None}


def test_no_garbage_is_collected_within_a_round():
    enabled = []
    number = count()

    measure({"copy": lambda: enabled.append(gc.isenabled()) or float(next(number) + 1)})

    assert enabled == [False] * 4
    assert gc.isenabled()


def test_garbage_is_collected_again_after_an_error():
    with pytest.raises(ZeroDivisionError):
        measure({"copy": lambda: 1 / 0})

    assert gc.isenabled()
