"""Tests over a stand-in for the driver, in a process of their own: see test_launch_path.py."""

from __future__ import annotations

import os

import pytest

if "DALI_MIXUP_DRIVER_STAND_IN" in os.environ:
    from support import driver as stand_in

    stand_in.set_up()
else:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def driver(monkeypatch):
    """A driver that has seen nothing. What the kernel did wrong fails the test."""
    from support import driver as stand_in

    from dali_mixup.backends.cuda import backend, device

    monkeypatch.setattr(stand_in, "DRIVER", stand_in.Driver())
    monkeypatch.setattr(device, "_functions", {})
    monkeypatch.setattr(backend, "_reports", {})
    device.plan_capacity.cache_clear()
    yield stand_in.DRIVER
    assert not stand_in.DRIVER.faults
