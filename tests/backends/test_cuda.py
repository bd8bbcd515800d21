"""What only a GPU can show: the kernel's machine code, streams, graphs, memory, and no waiting."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np
import pytest
from support.requirements import require, skip_or_fail

torch = require("torch", "cupy")
require("cupy")
if not torch.cuda.is_available():
    skip_or_fail("cupy", "there is no GPU")

from support.batches import mixed_plan, pixels  # noqa: E402
from support.formula import assert_same_bits  # noqa: E402
from support.specializations import DTYPES, conversions, specializations  # noqa: E402

from dali_mixup import MixPlan, Mixup, MixupLoader, OutputFormat  # noqa: E402
from dali_mixup.backends import reference  # noqa: E402
from dali_mixup.backends.cuda import device  # noqa: E402
from dali_mixup.backends.cuda.backend import (  # noqa: E402
    DevicePlan,
    blend,
    check_labels,
    mix,
    soft_labels,
    warm_up,
)
from dali_mixup.backends.cuda.compiler import compile_kernels  # noqa: E402
from dali_mixup.backends.cuda.launch import PLAN_CAPACITY  # noqa: E402

GPU = torch.device("cuda", 0)
NUM_CLASSES = 10
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
HALF = OutputFormat(dtype="float16", layout="CHW", mean=MEAN, std=STD)
SETTINGS = {"layout": "HWC", "num_classes": NUM_CLASSES, "label_smoothing": 0.1, "targets": "soft"}
SLEEP = 200_000_000  # cycles: some 0.1 s, far more than the host needs to go on


@pytest.fixture(autouse=True)
def _nothing_is_left_behind():
    yield
    check_labels(GPU)


def batch(size, side=16, seed=0):
    """uint8 HWC images and class ids, as numpy arrays."""
    images = pixels("uint8", (size, side, side, 3), seed)
    return images, np.random.default_rng(seed).integers(0, NUM_CLASSES, size)


def on_gpu(*arrays):
    return [torch.from_numpy(array).to(GPU) for array in arrays]


def assert_mixed(got, images, labels, plan):
    """What :func:`mix` handed out is what the reference makes of the same batch."""
    mixed, soft = got
    assert_same_bits(mixed.cpu().numpy(), reference.blend(images, plan, HALF, layout="HWC"))
    assert_same_bits(soft.cpu().numpy(), reference.soft_labels(labels, plan, NUM_CLASSES, 0.1))


# ---- the machine code ---------------------------------------------------------------------------

PLANES = [(16, 16), (3, 8), (3, 4), (5, 2), (5, 7)]  # pixels in multiples of 16, 8, 4, 2, 1
POISON = 0xA5


@pytest.fixture(scope="module")
def every_kernel():
    """All specialisations, compiled side by side, 40 in a program, and not one by one."""
    architecture = "sm_{}{}".format(*torch.cuda.get_device_capability(GPU))
    torch.zeros(1, device=GPU)  # a context, for the modules
    kernels = tuple(specializations("PlanByValue<64>"))
    parts = [kernels[start : start + 40] for start in range(0, len(kernels), 40)]

    functions = {}
    with ThreadPoolExecutor() as pool:
        for part, code in zip(
            parts, pool.map(lambda part: compile_kernels(part, architecture), parts), strict=True
        ):
            module = device.Module()
            module.load(code.code)
            functions |= zip(part, map(module.get_function, code.names), strict=True)
    return functions


class Memory:
    """Poisoned memory on the GPU with an array's bytes in it, at an offset from 512."""

    def __init__(self, nbytes, offset):
        self.raw = torch.full((nbytes + 64,), POISON, dtype=torch.uint8, device=GPU)
        self.bytes = self.raw[offset : offset + nbytes]

    def tensor(self, dtype, shape):
        return self.bytes.view(getattr(torch, dtype)).view(shape)

    def nothing_beside_it_was_written(self):
        beside = self.raw.clone()
        beside[self.bytes.storage_offset() :][: len(self.bytes)] = POISON
        return bool((beside == POISON).all())


def bytes_of(array):
    return torch.from_numpy(np.ascontiguousarray(array).view(np.uint8).reshape(-1))


def starts(in_size, out_size):
    """Offsets of the images and of the output, in bytes."""
    yield 0, 0
    for start in (1, 2, 4, 8):
        if start % in_size == 0:
            yield start, 0
        if start % out_size == 0:
            yield 0, start


@pytest.mark.parametrize("in_dtype", DTYPES)
def test_every_specialisation_equals_numpy_in_every_bit(in_dtype, every_kernel, monkeypatch):
    met = set()

    def function(kernel, device_index):
        met.add(kernel)
        return every_kernel[kernel]

    monkeypatch.setattr(device, "_function", function)
    outs = [out for inside, out in conversions() if inside == in_dtype]
    for out_dtype in outs:
        normalise = {} if out_dtype == "uint8" else {"mean": 0.4, "std": 1.3}
        for layout, out_layout in [("CHW", "CHW"), ("HWC", "CHW"), ("CHW", "HWC"), ("HWC", "HWC")]:
            output = OutputFormat(dtype=out_dtype, layout=out_layout, **normalise)
            for channels in (1, 3, 4):
                for height, width in PLANES:
                    sides = (channels, height, width)
                    shape = (9, *(sides if layout == "CHW" else (*sides[1:], channels)))
                    images = pixels(in_dtype, shape)
                    plan = mixed_plan(9, height, width)
                    want = reference.blend(images, plan, output, layout=layout)
                    for start, out_start in starts(images.itemsize, want.itemsize):
                        source = Memory(images.nbytes, start)
                        source.bytes.copy_(bytes_of(images))
                        target = Memory(want.nbytes, out_start)

                        blend(
                            source.tensor(in_dtype, shape), plan, output, layout=layout,
                            out=target.tensor(out_dtype, want.shape),
                        )  # fmt: skip

                        got = target.bytes.cpu().numpy().view(want.dtype).reshape(want.shape)
                        assert_same_bits(got, want)
                        assert target.nothing_beside_it_was_written()

    assert met == set(specializations("PlanByValue<64>", (in_dtype,)))


@pytest.mark.parametrize("size", [1, 64, 65, 1024, PLAN_CAPACITY, PLAN_CAPACITY + 1, 4096])
def test_plans_of_every_length_reach_the_kernel(size):
    images, labels = batch(size, side=8)
    plan = Mixup(num_classes=NUM_CLASSES, cutmix_alpha=1.0, mode="elem").plan(size, (8, 8))

    got = mix(*on_gpu(images, labels), plan, HALF, **SETTINGS)

    assert_mixed(got, images, labels, plan)


def test_more_than_2_to_the_31_bytes_go():
    size, shape = 1934, (500, 1000, 3)
    if torch.cuda.mem_get_info(GPU)[0] < 3 * size * 1_500_000:
        pytest.skip("needs 9 GB of free GPU memory")
    images = torch.randint(256, (size, *shape), dtype=torch.uint8, device=GPU)
    plan = Mixup(num_classes=NUM_CLASSES, alpha=1.0, mode="elem").plan(size)

    mixed = blend(images, plan, layout="HWC")

    assert images.numel() > 2**31
    for i in (0, 1, size // 2, 1431, 1432, size - 1):  # 1431 and 1432 lie around 2^31
        both = torch.stack([images[i], images[int(plan.partner[i])]]).cpu().numpy()
        alone = MixPlan([1, 1], [plan.lam[i], 1.0])
        want = reference.blend(both, alone, layout="HWC")[0]
        assert_same_bits(mixed[i].cpu().numpy(), want)


# ---- images and labels as users have them -------------------------------------------------------


def test_channels_last_images_are_read_as_they_lie_and_stay_so():
    images = pixels("float32", (6, 3, 20, 28))
    plan = mixed_plan(6, 20, 28)
    there = torch.from_numpy(images).to(GPU, memory_format=torch.channels_last)

    got = blend(there, plan)

    assert got.is_contiguous(memory_format=torch.channels_last)
    assert_same_bits(got.cpu().contiguous().numpy(), reference.blend(images, plan))


@pytest.mark.parametrize(
    "view", [lambda t: t[..., ::2], lambda t: t[:, :, 1:, 3:], lambda t: t.flip(0).transpose(2, 3)]
)
def test_strided_images_are_read_as_what_they_show(view):
    images = view(torch.from_numpy(pixels("float32", (5, 3, 24, 40))).to(GPU))
    plan = mixed_plan(5, *images.shape[2:])

    got = blend(images, plan)

    assert_same_bits(got.cpu().numpy(), reference.blend(images.cpu().numpy(), plan))


@pytest.mark.parametrize("targets", ["soft", "pairs"])
@pytest.mark.parametrize("label_dtype", ["int32", "int64", "uint8"])
def test_a_call_equals_numpy_in_images_and_targets(targets, label_dtype):
    settings = {"num_classes": NUM_CLASSES, "cutmix_alpha": 1.0, "mode": "elem", "output": HALF}
    there, here = (Mixup(**settings, targets=targets) for _ in range(2))
    for step in range(3):
        images, labels = batch(12, seed=step)
        labels = labels.astype(label_dtype)

        mixed, target = there(*on_gpu(images, labels))

        want, want_target = here(images, labels)
        assert_same_bits(mixed.cpu().numpy(), want)
        if targets == "soft":
            target, want_target = (target,), (want_target,)
        for got_part, want_part in zip(target, want_target, strict=True):
            assert got_part.device == GPU
            assert_same_bits(got_part.cpu().numpy(), want_part)


def test_dense_labels_equal_numpy():
    images, _ = batch(12)
    labels = np.random.default_rng(0).random((12, NUM_CLASSES), np.float32)
    plan = mixed_plan(12, 16, 16)

    got = mix(*on_gpu(images, labels), plan, HALF, **SETTINGS)

    assert_mixed(got, images, labels, plan)


def test_labels_may_be_on_the_cpu():
    images, labels = batch(8)
    plan = mixed_plan(8, 16, 16)

    got = mix(*on_gpu(images), torch.from_numpy(labels), plan, HALF, **SETTINGS)

    assert got[1].device == GPU
    assert_mixed(got, images, labels, plan)


# ---- a bad label --------------------------------------------------------------------------------

BAD_LABEL = r"\[0, 10\), got 77 at row 3; num_classes is 10"


@pytest.mark.parametrize("targets", ["soft", "pairs"])
def test_a_bad_label_is_raised_on_the_next_batch_and_the_one_after_goes(targets):
    images, labels = batch(8)
    plan = mixed_plan(8, 16, 16)
    bad = np.where(np.arange(8) == 3, 77, labels)
    mix_labels = partial(mix, *on_gpu(images), **SETTINGS | {"targets": targets})

    _, target = mix_labels(on_gpu(bad)[0], plan, HALF)
    torch.cuda.synchronize(GPU)

    of_row_3 = target[3] if targets == "soft" else target[2][3]
    assert bool(of_row_3.isnan().all())
    with pytest.raises(ValueError, match=BAD_LABEL):
        mix_labels(on_gpu(labels)[0], plan, HALF)
    assert_mixed(mix(*on_gpu(images, labels), plan, HALF, **SETTINGS), images, labels, plan)


def test_check_raises_a_bad_label_once():
    bad = torch.tensor([1, 2, 3, 77], device=GPU)

    soft_labels(bad, mixed_plan(4, 16, 16), NUM_CLASSES)

    with pytest.raises(ValueError, match=BAD_LABEL):
        check_labels(GPU)
    check_labels(GPU)


def test_a_bad_label_on_the_cpu_is_raised_at_once():
    images, labels = batch(8)
    labels[3] = 77

    with pytest.raises(ValueError, match=BAD_LABEL):
        mix(*on_gpu(images), torch.from_numpy(labels), mixed_plan(8, 16, 16), HALF, **SETTINGS)


# ---- streams, graphs, devices -------------------------------------------------------------------


def test_the_launch_waits_for_what_the_current_stream_does_before_it():
    """The batch comes late on a side stream; a launch elsewhere would read what was there."""
    images, labels = batch(8)
    plan = mixed_plan(8, 16, 16)
    late = on_gpu(images, labels)
    there = [torch.zeros_like(part) for part in late]
    stream = torch.cuda.Stream(GPU)
    with torch.cuda.stream(stream):  # compiled, and memory there: the host gets ahead of the sleep
        mix(*there, plan, HALF, **SETTINGS)
    torch.cuda.synchronize(GPU)

    with torch.cuda.stream(stream):
        torch.cuda._sleep(SLEEP)
        for part, comes in zip(there, late, strict=True):
            part.copy_(comes)
        got = mix(*there, plan, HALF, **SETTINGS)
        asleep = not stream.query()
        stream.synchronize()

    assert asleep
    assert_mixed(got, images, labels, plan)


def test_a_plan_by_value_is_refused_while_a_graph_is_captured():
    there = on_gpu(*batch(8))
    plan = mixed_plan(8, 16, 16)
    mix(*there, plan, HALF, **SETTINGS)

    def capture():
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            there[0].clone()  # torch warns of a graph with nothing in it
            mix(*there, plan, HALF, **SETTINGS)

    with pytest.raises(RuntimeError, match="expected a DevicePlan while a CUDA graph is captured"):
        capture()
    images, labels = batch(8)
    assert_mixed(mix(*there, plan, HALF, **SETTINGS), images, labels, plan)


def test_a_captured_graph_takes_the_next_batch_and_the_next_plan():
    first, second = batch(8, seed=1), batch(8, seed=2)
    mixup = Mixup(num_classes=NUM_CLASSES, cutmix_alpha=1.0, mode="elem")
    plans = [mixup.plan(8, (16, 16), step=step) for step in range(3)]
    there, plan = on_gpu(*first), DevicePlan(plans[0], GPU)
    mix(*there, plan, HALF, **SETTINGS)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = mix(*there, plan, HALF, **SETTINGS)

    graph.replay()
    assert_mixed(got, *first, plans[0])

    plan.update(plans[1])
    graph.replay()
    assert_mixed(got, *first, plans[1])

    for part, comes in zip(there, on_gpu(*second), strict=True):
        part.copy_(comes)
    plan.update(plans[2])
    graph.replay()
    assert_mixed(got, *second, plans[2])


def test_a_plan_of_another_length_does_not_replace_one_on_the_gpu():
    plan = DevicePlan(mixed_plan(8, 16, 16), GPU)

    with pytest.raises(ValueError, match="plan: expected 8 samples, got 4"):
        plan.update(mixed_plan(4, 16, 16))


def test_a_batch_on_another_gpu_is_mixed_there():
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    images, labels = batch(8)
    plan = mixed_plan(8, 16, 16)

    got = mix(*(part.to("cuda:1") for part in on_gpu(images, labels)), plan, HALF, **SETTINGS)

    assert [part.device.index for part in got] == [1, 1]
    assert torch.cuda.current_device() == 0
    assert_mixed(got, images, labels, plan)


# ---- what it costs ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, PLAN_CAPACITY + 1])
def test_a_batch_waits_for_nothing(size):
    images, labels = batch(size, side=8)
    plan = mixed_plan(size, 8, 8)
    there = on_gpu(images, labels)
    mix(*there, plan, HALF, **SETTINGS)
    torch.cuda.synchronize(GPU)

    torch.cuda._sleep(SLEEP)
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = [mix(*there, plan, HALF, **SETTINGS) for _ in range(5)]
        asleep = not torch.cuda.current_stream(GPU).query()
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert asleep
    assert_mixed(got[-1], images, labels, plan)


def test_a_batch_takes_no_memory_but_its_outputs():
    there = on_gpu(*batch(64, side=32))
    plan = mixed_plan(64, 32, 32)
    mix(*there, plan, HALF, **SETTINGS)
    torch.cuda.synchronize(GPU)
    before = torch.cuda.memory_allocated(GPU)
    torch.cuda.reset_peak_memory_stats(GPU)

    got = mix(*there, plan, HALF, **SETTINGS)

    outputs = sum(-(-part.nbytes // 512) * 512 for part in got)
    assert torch.cuda.max_memory_allocated(GPU) - before == outputs


def test_what_was_warmed_up_compiles_nothing_more(monkeypatch):
    compiled = []

    def counted(kernels, architecture):
        compiled.extend(kernels)
        return compile_kernels(kernels, architecture)

    monkeypatch.setattr(device, "compile_kernels", counted)
    monkeypatch.setattr(device, "_function", cache(device._function.__wrapped__))
    images, labels = batch(8)
    there, plan = on_gpu(images, labels), mixed_plan(8, 16, 16)

    warm_up(images.shape, output=HALF, num_classes=NUM_CLASSES, device=GPU)

    by_value_and_by_pointer = 2
    assert len(compiled) == by_value_and_by_pointer
    assert_mixed(mix(*there, plan, HALF, **SETTINGS), images, labels, plan)
    assert len(compiled) == by_value_and_by_pointer


# ---- DALI ---------------------------------------------------------------------------------------


def test_what_dali_decodes_on_the_gpu_is_mixed_there(photo_folder):
    require("nvidia.dali", "dali")
    from dali_mixup import MixupClassificationIterator, image_pipeline

    pipeline = image_pipeline(photo_folder, 4, 32, device="gpu")
    mixup = Mixup(num_classes=3, mode="elem", output=HALF)

    loader = MixupClassificationIterator(pipeline, reader_name="Reader", mixup=mixup)

    for [outputs] in loader:
        data, soft = outputs["data"], outputs["label"]
        assert (data.device, data.dtype, tuple(data.shape)) == (GPU, torch.float16, (4, 3, 32, 32))
        assert bool(data.isfinite().all())
        np.testing.assert_allclose(soft.sum(1).cpu().numpy(), 1, atol=1e-6)


def test_a_batch_of_dali_equals_the_reference_down_to_the_partial_one(photo_folder):
    dali = require("nvidia.dali", "dali")
    from nvidia.dali.plugin.base_iterator import LastBatchPolicy
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    @dali.pipeline_def(batch_size=4, num_threads=2, device_id=GPU.index)
    def decoded():
        encoded, labels = dali.fn.readers.file(file_root=str(photo_folder), name="Reader")
        images = dali.fn.resize(dali.fn.decoders.image(encoded, device="mixed"), size=(32, 32))
        return images, images, labels

    loader = MixupLoader(
        DALIGenericIterator(
            decoded(), ["data", "unmixed", "label"], reader_name="Reader",
            last_batch_policy=LastBatchPolicy.PARTIAL,
        ),
        Mixup(num_classes=3, mode="elem", output=HALF),
        plan_key="plan",
    )  # fmt: skip

    sizes = []
    for [outputs] in loader:
        images, plan = outputs["unmixed"].cpu().numpy(), outputs["plan"]
        want = reference.blend(images, plan, HALF, layout="HWC")
        assert_same_bits(outputs["data"].cpu().numpy(), want)
        sizes.append(len(plan))
    assert sizes == [4, 4, 4, 2]
