"""The CPU backend against the reference: blocks, torch's operations, threads, forked processes."""

import itertools
import os
import threading
from dataclasses import replace

import numpy as np
import pytest
from support.batches import mixed_plan, pixels
from support.formula import assert_same_bits, formula, to_bfloat16
from support.requirements import require

from dali_mixup import MixPlan, Mixup, MixupLoader, OutputFormat
from dali_mixup.backends import blocks, cpu, reference
from dali_mixup.backends.arrays import NUMPY
from dali_mixup.output import BFLOAT16
from dali_mixup.plan import unmixed

DTYPES = ["uint8", "uint16", "float16", "bfloat16", "float32"]
SHAPES = {
    "CHW": (3, 6, 10),
    "HWC": (6, 10, 3),
    "FHWC": (2, 6, 5, 3),
    "FCHW": (2, 3, 6, 5),
    "CFHW": (3, 2, 6, 5),
}
B = 13
VALUES = 180
WEIGHED = MixPlan([(i * 5 + 2) % B for i in range(B)], [0.3] * B)
EACH_ITS_OWN = MixPlan([3, 3, 3, 0, 7, 7, 1, 12, 0, 5, 5, 9, 2], np.linspace(0.05, 0.95, B))


def plans(height, width):
    """Permuted and not, with one share and several, and with some, all and no selected samples."""
    return [
        WEIGHED,
        EACH_ITS_OWN,
        mixed_plan(B, height, width),
        MixPlan(WEIGHED.partner, [0.4] * B, [[1, 4, 2, 5]] * B),
        MixPlan(WEIGHED.partner, [0.4] * B, [[i % 3, 3 + i % 4, i % 5, 5] for i in range(B)]),
        MixPlan(WEIGHED.partner, [0.0] * B),
        unmixed(B),
    ]


def outputs(dtype, layout):
    """The output formats of images of this dtype, with and without another order."""
    stays = [] if dtype == "uint16" else [dtype]
    others = [each for each in SHAPES if ("F" in each) == ("F" in layout)]
    for out_layout, out_dtype in itertools.product(others, [*stays, "float32", "float16"]):
        yield OutputFormat(dtype=out_dtype, layout=out_layout)
    for out_layout in others:
        yield OutputFormat(
            dtype="float32", layout=out_layout, mean=(1.5, 2.5, -3.5), std=(50.0, 60.0, 70.0)
        )
    if layout in ("CHW", "HWC"):
        yield OutputFormat(dtype="bfloat16", channels_last=True, mean=7.0)


def images_of(dtype, shape):
    """Pixels; of floats some are infinite, not a number or a negative zero."""
    images = pixels(dtype, shape)
    if images.dtype.kind in "Vf":
        special = np.array([np.inf, -np.inf, np.nan, -0.0], np.float32)
        special = to_bfloat16(special) if dtype == "bfloat16" else special.astype(dtype)
        images.reshape(-1)[:: VALUES // 12] = np.resize(special, images.size // (VALUES // 12))
    return images


@pytest.fixture(params=[10**9, 3 * VALUES, VALUES, 70, 25])
def at_once(request, monkeypatch):
    """So many values are computed at once: all images, three, one, and parts of one."""
    monkeypatch.setattr(blocks, "FEW", 2)
    return request.param


@pytest.fixture
def in_blocks(at_once):
    """numpy's operations."""
    return replace(NUMPY, at_once=at_once)


@pytest.fixture(params=["NUMPY", "ONE_THREAD", "THREADED"])
def operations(request, at_once):
    those = NUMPY if request.param == "NUMPY" else getattr(of_torch(), request.param)
    return replace(those, at_once=at_once)


def of_torch():
    require("torch")
    from dali_mixup.backends import torch_operations

    return torch_operations


@pytest.mark.parametrize("layout", list(SHAPES))
@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_and_operations_change_no_bit(dtype, layout, operations):
    if dtype == "uint16" and operations.wrap is not NUMPY.wrap:
        pytest.skip("torch copies no uint16 into another order, and is not asked to")
    images = images_of(dtype, (B, *SHAPES[layout]))
    height, width = (SHAPES[layout][layout.index(side)] for side in "HW")
    for plan, output in itertools.product(plans(height, width), outputs(dtype, layout)):
        got = cpu.blend(images, plan, output, layout=layout, operations=operations)

        assert_same_bits(got, reference.blend(images, plan, output, layout=layout))


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_reference_equals_the_formula(dtype, layout):
    images = images_of(dtype, (B, *SHAPES[layout]))
    for plan, output in itertools.product(plans(6, 10), outputs(dtype, layout)):
        got = reference.blend(images, plan, output, layout=layout)

        assert_same_bits(got, formula(images, plan, output, layout))


def test_images_that_are_not_contiguous(in_blocks):
    images = pixels("float32", (2 * B, 3, 6, 20))[::2, ..., ::2]
    output = OutputFormat(layout="HWC", mean=2.0)

    got = cpu.blend(images, EACH_ITS_OWN, output, operations=in_blocks)

    assert_same_bits(got, reference.blend(images, EACH_ITS_OWN, output))


def test_an_output_that_is_not_contiguous(in_blocks):
    images = pixels("uint8", (B, 3, 6, 10))
    output = OutputFormat(dtype="float32")
    out = np.full((B, 3, 6, 20), -1, np.float32)

    cpu.blend(images, WEIGHED, output, out=out[..., ::2], operations=in_blocks)

    assert_same_bits(out[..., ::2], reference.blend(images, WEIGHED, output))
    assert (out[..., 1::2] == -1).all()


def test_the_images_are_not_written_to(in_blocks):
    images = pixels("float32", (B, 3, 6, 10))
    images.setflags(write=False)
    for plan in plans(6, 10):
        cpu.blend(images, plan, operations=in_blocks)


@pytest.mark.parametrize("at_once", [3 * VALUES, VALUES], indirect=True)
def test_several_threads_of_a_program_mix_at_the_same_time(in_blocks):
    batches = [pixels("uint8", (B, 6, 10, 3), seed) for seed in range(8)]
    output = OutputFormat(dtype="float32", layout="CHW", mean=3.0)
    want = [reference.blend(images, WEIGHED, output, layout="HWC") for images in batches]
    wrong = []

    def mix(number):
        for _ in range(50):
            got = cpu.blend(batches[number], WEIGHED, output, layout="HWC", operations=in_blocks)
            if not np.array_equal(got, want[number]):
                wrong.append(number)

    programs = [threading.Thread(target=mix, args=(number,)) for number in range(len(batches))]
    for program in programs:
        program.start()
    for program in programs:
        program.join()
    assert not wrong


@pytest.fixture
def two_threads(torch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_are_used_where_torch_has_several_and_a_batch_is_worth_them(torch, two_threads):
    operations_for, large = of_torch().operations_for, torch.zeros(16, 3, 224, 224)

    assert operations_for(large) is of_torch().THREADED
    assert operations_for(large.byte()) is of_torch().THREADED_CONVERTING
    assert operations_for(large[:1]) is of_torch().ONE_THREAD
    assert operations_for(large.to(torch.uint16)) is of_torch().ONE_THREAD
    torch.set_num_threads(1)
    assert operations_for(large) is of_torch().ONE_THREAD


def test_a_loader_mixes_in_one_thread(torch, two_threads, monkeypatch):
    used = []
    choose = of_torch().operations_for
    monkeypatch.setattr(
        "dali_mixup.backends.torch_cpu.operations_for",
        lambda images: (used.append(choose(images)), used[-1])[1],
    )
    images, labels = torch.zeros(16, 3, 224, 224), torch.arange(16)
    mixup = Mixup(num_classes=16)

    next(iter(MixupLoader([(images, labels)], mixup=mixup)))
    mixup(images, labels)

    assert used == [of_torch().ONE_THREAD, of_torch().THREADED]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_the_threads_of_torch(torch, two_threads):
    images, plan = torch.rand(16, 3, 224, 224), unmixed(16)
    mixup = Mixup(num_classes=8)
    want, _ = mixup.mix(images, None, plan)

    child = os.fork()
    if not child:
        threading.Timer(20, os._exit, (2,)).start()
        got, _ = mixup.mix(images, None, plan)
        os._exit(int(not np.array_equal(got.numpy(), want.numpy())))

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("partners", [[], [0], [1, 0], [2, 0, 1], [0, 0, 0], [3, 3, 1, 1, 0]])
def test_the_order_along_partners_has_each_sample_once(partners):
    order = blocks.along_partners(partners)

    assert sorted(order) == list(range(len(partners)))
    for sample, following in itertools.pairwise(order):
        assert following == partners[sample] or partners[sample] in order[: order.index(sample) + 1]


def test_torch_loads_every_float16():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    got = np.empty(every.shape, np.float32)

    of_torch().ONE_THREAD.loads["float16"](got, every)

    assert_same_bits(got, every.astype(np.float32))


def _near(dtype, to_bits):
    """float32 at, between and beside all values of a 16-bit dtype, and at random."""
    bits = np.arange(1 << 16, dtype=np.uint32)
    every = to_bits(bits)
    finite = np.unique(every[np.isfinite(every)]).astype(np.float64)
    middle = ((finite[1:] + finite[:-1]) / 2).astype(np.float32)
    values = np.concatenate([every, middle])
    values = np.concatenate([np.nextafter(values, F) for F in (-np.inf, np.inf)] + [values])
    rng = np.random.default_rng(0)
    return np.concatenate([values, rng.integers(0, 2**32, 300_000, np.uint32).view(np.float32)])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
def test_torch_rounds_to_float16_as_numpy_does():
    values = _near("float16", lambda bits: bits.astype(np.uint16).view(np.float16).astype("f4"))
    got = np.empty(values.shape, np.float16)

    of_torch().ONE_THREAD.stores["float16"](got, values.copy())

    assert_same_bits(got, values.astype(np.float16))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
def test_torch_rounds_to_bfloat16_as_the_formula_does():
    values = _near("bfloat16", lambda bits: (bits << 16).view(np.float32))
    got = np.empty(values.shape, BFLOAT16)

    of_torch().ONE_THREAD.stores["bfloat16"](got, values.copy())

    assert_same_bits(got, to_bfloat16(values))


@pytest.mark.parametrize("dtype", ["uint8", "float16", "bfloat16", "float32"])
def test_tensors_are_mixed_alike_by_any_number_of_threads(torch, monkeypatch, dtype, two_threads):
    monkeypatch.setattr(of_torch(), "WORTH_THREADS", 1)
    images = (torch.rand(B, 3, 120, 120) * 255).to(getattr(torch, dtype))
    output = OutputFormat(dtype="float16", channels_last=True, mean=99.0, std=50.0)
    results = []
    for threads in (2, 1):
        torch.set_num_threads(threads)
        mixup = Mixup(num_classes=B, cutmix_alpha=1.0, mode="elem", output=output)
        results.append(mixup(images, torch.arange(B))[0].view(torch.int16))
    assert torch.equal(*results)
