"""Labels that a GPU finds to be out of range after their batch was handed out.

The kernel runs on the CPU here; what it reports waits in memory until somebody asks, as on a GPU.
"""

import shutil

import numpy as np
import pytest
from support.requirements import require, skip_or_fail

torch = require("torch", backend="host")
require("cupy", backend="host")
if shutil.which("g++") is None:
    skip_or_fail("host", "g++ is not installed")

from support.host_shim import take_the_gpus_place  # noqa: E402

from dali_mixup import Mixup, MixupLoader, check_labels  # noqa: E402
from dali_mixup.backends import inputs  # noqa: E402
from dali_mixup.backends.cuda import backend  # noqa: E402

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8))
GOOD, BAD = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 77, 3])
MESSAGE = (
    r"expected class ids in \[0, 5\), got 77 at row 2 of an earlier batch, whose target is NaN; "
    "num_classes is 5"
)


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """CPU tensors go to the GPU backend."""
    take_the_gpus_place(monkeypatch)
    real = inputs.as_images

    def on_gpu(images, *settings):
        return real(images, *settings)._replace(backend=backend)

    monkeypatch.setattr("dali_mixup.mixup.as_images", on_gpu)


def loader_of(labels, **settings):
    return MixupLoader(
        [(IMAGES, rows) for rows in labels], Mixup(**({"num_classes": 5} | settings))
    )


def test_a_bad_label_makes_its_targets_nan_and_is_raised_before_the_next_batch_is_fetched():
    batches = iter(loader_of([GOOD, BAD, GOOD]))
    next(batches)
    _, targets = next(batches)

    with pytest.raises(ValueError, match=MESSAGE):
        next(batches)

    assert torch.isnan(targets[2]).all()
    assert not torch.isnan(next(batches)[1]).any()


def test_no_batch_and_no_step_is_lost():
    whole = [soft for _, soft in loader_of([GOOD] * 3)]
    batches = iter(loader_of([BAD, GOOD, GOOD]))
    next(batches)

    with pytest.raises(ValueError, match=MESSAGE):
        next(batches)

    assert [torch.equal(got[1], want) for got, want in zip(batches, whole[1:], strict=True)]
    for (_, got), want in zip(loader_of([GOOD] * 3), whole, strict=True):
        assert torch.equal(got, want)


def test_another_loader_names_the_num_classes_of_the_bad_batch():
    next(iter(loader_of([BAD])))

    with pytest.raises(ValueError, match=MESSAGE):
        next(iter(loader_of([GOOD], num_classes=1000)))


def test_a_call_raises_it_too_and_takes_no_step():
    mixup = Mixup(num_classes=5)
    mixup(IMAGES, BAD)

    with pytest.raises(ValueError, match=MESSAGE):
        mixup(IMAGES, GOOD)

    assert mixup.state_dict()["step"] == 1


def test_it_is_raised_once():
    mixup = Mixup(num_classes=5)
    mixup(IMAGES, BAD)
    with pytest.raises(ValueError, match=MESSAGE):
        check_labels("cpu")

    check_labels("cpu")

    assert mixup(IMAGES, GOOD)[1].shape == (4, 5)
