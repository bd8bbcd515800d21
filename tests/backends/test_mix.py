"""Images and labels in one call, for every backend: what a batch of a loader goes through."""

import numpy as np
import pytest
from support.batches import mixed_plan, pixels
from support.formula import assert_same_bits, formula, soft_label_formula

from dali_mixup import MixPlan, OutputFormat

CLASSES = 7
IDS = np.array([3, 0, 6, 6, 1, 2, 5, 4, 0])
ROWS = np.random.default_rng(0).random((9, CLASSES)).astype(np.float32)
PLAIN = OutputFormat()
HALF = OutputFormat(dtype="float16", layout="CHW", mean=(120.0, 110.0, 100.0), std=(60, 55, 50))
BY_VALUE = 2038  # samples of the largest plan that goes by value


def mix(backend, images, labels, plan, output=PLAIN, **settings):
    defaults = {"layout": "HWC", "num_classes": CLASSES, "label_smoothing": 0.0, "targets": "soft"}
    return backend.mix(images, labels, plan, output, **(defaults | settings))


@pytest.mark.parametrize("output", [PLAIN, HALF], ids=["kept", "half"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "labels",
    [
        IDS.astype(np.int32),
        IDS,
        IDS[:, None],
        IDS.astype(np.uint8),
        ROWS,
        ROWS.astype(np.float64),
        ROWS > 0.5,
    ],
    ids=["int32", "int64", "column", "uint8", "rows", "float64 rows", "bool rows"],
)
def test_one_call_equals_both_formulas_in_every_bit(backend, labels, smoothing, output):
    images, plan = pixels("uint8", (9, 6, 10, 3)), mixed_plan(9, 6, 10)

    mixed, soft = mix(backend, images, labels, plan, output, label_smoothing=smoothing)

    assert_same_bits(mixed, formula(images, plan, output, "HWC"))
    assert soft.tobytes() == soft_label_formula(labels, plan, CLASSES, smoothing).tobytes()


@pytest.mark.parametrize("targets", ["soft", "pairs"])
def test_labels_of_another_head_have_the_targets_that_a_call_makes(backend, targets):
    images, plan = pixels("uint8", (9, 6, 10, 3)), mixed_plan(9, 6, 10)
    settings = {"num_classes": CLASSES, "label_smoothing": 0.0, "targets": targets}

    alone = backend.mix_labels(images, IDS, plan, **settings)

    _, both = backend.mix(images, IDS, plan, PLAIN, layout="HWC", **settings)
    assert type(alone) is type(both)
    for one, other in zip(alone, both, strict=True):  # parts of pairs, or rows
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("labels", [IDS, IDS.astype(np.int32)], ids=["int64", "int32"])
def test_pairs_are_both_ids_and_the_share_of_the_first(backend, labels):
    plan = mixed_plan(9, 6, 10)

    _, (own, partner, lam) = mix(
        backend, pixels("uint8", (9, 6, 10, 3)), labels, plan, targets="pairs"
    )

    assert own.tolist() == IDS.tolist()
    assert partner.tolist() == IDS[plan.partner].tolist()
    assert (own.dtype, partner.dtype) == (np.int64, np.int64)
    assert lam.tobytes() == plan.lam.tobytes()


def test_images_alone_have_no_targets(backend):
    images, plan = pixels("float32", (9, 3, 6, 10)), mixed_plan(9, 6, 10)

    mixed, targets = mix(backend, images, None, plan, layout="CHW")

    assert targets is None
    assert_same_bits(mixed, formula(images, plan, PLAIN, "CHW"))


def strided_ids():
    return np.repeat(IDS, 2)[::2], IDS


def a_column_of_ids():
    return np.stack([IDS, IDS + 1], axis=1)[:, :1], IDS


def transposed_rows():
    return np.asfortranarray(ROWS), ROWS


def strided_rows():
    return np.repeat(ROWS, 2, axis=0)[::2], ROWS


@pytest.mark.parametrize("view", [strided_ids, a_column_of_ids, transposed_rows, strided_rows])
def test_labels_are_read_as_what_they_show_and_not_as_they_lie(backend, view):
    labels, shown = view()
    plan = mixed_plan(9, 6, 10)

    _, soft = mix(backend, pixels("uint8", (9, 6, 10, 3)), labels, plan)

    assert soft.tobytes() == soft_label_formula(shown, plan, CLASSES).tobytes()


@pytest.mark.parametrize("output", [PLAIN, HALF], ids=["kept", "half"])
def test_channels_last_images_are_not_read_as_planes(backend, output):
    images, plan = pixels("uint8", (9, 6, 10, 3)), mixed_plan(9, 6, 10)
    channels_last = images.transpose(0, 3, 1, 2)

    mixed, _ = mix(backend, channels_last, IDS, plan, output, layout="CHW")

    want = formula(np.ascontiguousarray(channels_last), plan, output, "CHW")
    assert_same_bits(np.ascontiguousarray(mixed), want)


@pytest.mark.parametrize("start", [1, 2, 4, 8])
def test_images_that_are_not_aligned_are_read_as_they_are(backend, start):
    images, plan = pixels("uint8", (9, 8, 16, 3)), mixed_plan(9, 8, 16)
    memory = np.zeros(images.nbytes + 16, np.uint8)
    shifted = memory[start : start + images.nbytes].reshape(images.shape)
    shifted[:] = images

    mixed, _ = mix(backend, shifted, IDS, plan, HALF)

    assert_same_bits(mixed, formula(images, plan, HALF, "HWC"))


@pytest.mark.parametrize("start", [2, 4, 8])
def test_an_output_that_is_not_aligned_is_written_as_it_is(backend, start):
    images, plan = pixels("uint8", (9, 8, 16, 3)), mixed_plan(9, 8, 16)
    memory = np.zeros(2 * images.size + 16, np.uint8)
    out = memory[start : start + 2 * images.size].view(np.float16).reshape(9, 3, 8, 16)

    backend.blend(images, plan, HALF, layout="HWC", out=out)

    assert_same_bits(out, formula(images, plan, HALF, "HWC"))


@pytest.mark.parametrize("size", [1, 64, 65, 1025, BY_VALUE, BY_VALUE + 1])
def test_every_size_of_plan_reaches_the_kernel(backend, size):
    images = pixels("uint8", (size, 2, 2, 3))
    labels = np.arange(size) % CLASSES
    plan = mixed_plan(size, 2, 2)

    mixed, soft = mix(backend, images, labels, plan)

    assert_same_bits(mixed, formula(images, plan, PLAIN, "HWC"))
    assert soft.tobytes() == soft_label_formula(labels, plan, CLASSES).tobytes()


def test_an_empty_batch_has_empty_targets(backend):
    mixed, soft = mix(backend, np.zeros((0, 4, 4, 3), np.uint8), IDS[:0], MixPlan([], []))

    assert mixed.shape == (0, 4, 4, 3)
    assert soft.shape == (0, CLASSES)


def test_soft_labels_into_the_labels_own_memory_are_refused(backend):
    rows = ROWS.copy()

    with pytest.raises(ValueError, match=r"out: expected memory of its own.* the labels share"):
        backend.soft_labels(rows, mixed_plan(9, 6, 10), CLASSES, out=rows)

    assert (rows == ROWS).all()


def test_dense_labels_have_no_pairs(backend):
    with pytest.raises(TypeError, match="expected class ids for targets='pairs', got dense"):
        mix(backend, pixels("uint8", (9, 6, 10, 3)), ROWS, mixed_plan(9, 6, 10), targets="pairs")
