"""From a loader or a call down to the driver: what it is given, and what comes back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nvidia.dali.plugin.pytorch import DALIGenericIterator
from PIL import Image
from support import driver as stand_in
from support.batches import mixed_plan, pixels

from dali_mixup import (
    DevicePlan,
    MixPlan,
    Mixup,
    MixupClassificationIterator,
    MixupLoader,
    OutputFormat,
    image_pipeline,
)
from dali_mixup.backends import cpu, reference
from dali_mixup.backends.cuda import backend, device
from dali_mixup.backends.cuda.launch import (
    INT64_IDS,
    LabelArguments,
    batch_parameters,
    image_launch,
    plan_parameters,
)
from dali_mixup.cli import doctor

HALF = OutputFormat(dtype="float16", layout="CHW", mean=(120.0, 110.0, 100.0), std=60.0)
SETTINGS = {"layout": "HWC", "num_classes": 9, "label_smoothing": 0.1, "targets": "soft"}


def batch(size, side=16):
    images = torch.from_numpy(pixels("uint8", (size, side, side, 3)))
    return images, torch.from_numpy(np.random.default_rng(0).integers(0, 9, size))


def mixed(images, labels, plan, output=HALF, **changes):
    """Of the GPU backend, after it was compared with the reference."""
    settings = SETTINGS | changes
    got = backend.mix(images, labels, plan, output, **settings)
    of_host = plan.plan if isinstance(plan, DevicePlan) else plan
    want = cpu.mix(images.numpy(), labels.numpy(), of_host, output, **settings)
    assert_equal(got, want)
    return got


def assert_equal(got, want):
    """In every bit; targets are soft rows or pairs."""
    (images, targets), (want_images, want_targets) = got, want
    parts, want_parts = (t if isinstance(t, tuple) else (t,) for t in (targets, want_targets))
    for one, other in zip((images, *parts), (want_images, *want_parts), strict=True):
        assert one.numpy().tobytes() == other.tobytes()


# ---- what the driver is given -------------------------------------------------------------------


@pytest.mark.parametrize("targets", ["soft", "pairs"])
def test_a_call_is_one_launch_with_the_bytes_of_its_parameters(driver, targets):
    images, labels = batch(5)
    plan = mixed_plan(5, 16, 16)

    out, target = mixed(images, labels, plan, targets=targets)

    form = HALF.resolve(tuple(images.shape), "uint8", "HWC")
    expected = image_launch(form, 0, 0, with_labels=True, by_pointer=False)
    soft = target if targets == "soft" else target[2]
    pair = 0 if targets == "soft" else target[0].data_ptr()
    report = backend._reports[0].address
    arguments = LabelArguments(INT64_IDS, labels.data_ptr(), soft.data_ptr(), pair, report, 9, 0.1)
    [launched] = driver.launched
    assert launched.kernel == expected.kernel
    assert (launched.grid, launched.block) == (expected.grid, (192, 1, 1))
    assert (launched.shared_bytes, launched.stream) == (0, driver.stream)
    assert launched.parameters == (
        bytes(batch_parameters(form, images.data_ptr(), out.data_ptr(), arguments)),
        plan_parameters(plan).tobytes(),
    )


@pytest.mark.parametrize("size", [1, 64, 65, 2038, 2039])
def test_a_plan_goes_by_value_as_long_as_it_fits(driver, size):
    mixed(*batch(size, side=4), mixed_plan(size, 4, 4))

    by_value = "PlanByPointer" not in driver.launched[0].kernel
    assert by_value == (size <= 2038)
    assert sum(map(len, driver.launched[0].parameters)) <= 32_764


@pytest.mark.parametrize(("version", "by_value"), [(12000, 64), (12010, 2038)])
def test_an_old_driver_gets_no_large_parameters(driver, version, by_value):
    driver.version = version

    for size in (by_value, by_value + 1):
        mixed(*batch(size, side=4), mixed_plan(size, 4, 4))

    assert ["PlanByPointer" in launch.kernel for launch in driver.launched] == [False, True]


def test_an_old_driver_would_refuse_them(driver, monkeypatch):
    driver.version = 12000
    monkeypatch.setattr(device, "plan_capacity", lambda: 2038)

    with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_VALUE"):
        mixed(*batch(65, side=4), mixed_plan(65, 4, 4))


def test_what_is_launched_uses_the_stream_on_which_its_outputs_were_allocated(driver, monkeypatch):
    streams = []
    empty = torch.empty

    def noted(*args, **kwargs):
        streams.append(driver.stream)
        return empty(*args, **kwargs)

    monkeypatch.setattr(torch, "empty", noted)
    images, labels = batch(4)

    for stream in (0, 0x1234):
        driver.stream = stream
        mixed(images, labels, mixed_plan(4, 16, 16))

    assert [launch.stream for launch in driver.launched] == [0, 0x1234]
    assert streams == [0, 0, 0x1234, 0x1234]


def test_what_is_converted_for_the_kernel_lives_until_the_launch(driver):
    images = torch.from_numpy(pixels("uint8", (4, 16, 32, 3)))[:, :, ::2]
    rows = torch.rand(4, 9, dtype=torch.float64)

    for labels in (torch.arange(4, dtype=torch.int16), rows):
        backend.mix(images, labels, MixPlan([1, 0, 3, 2], [0.3] * 4), HALF, **SETTINGS)

    assert len(driver.launched) == 2


# ---- devices and architectures ------------------------------------------------------------------


def test_a_kernel_is_loaded_once_for_each_device(driver):
    images, labels = batch(4)
    plan = mixed_plan(4, 16, 16)

    for index in (0, 1, 0, 1):
        driver.device = index
        mixed(images, labels, plan)

    assert [launch.device for launch in driver.launched] == [0, 1, 0, 1]
    assert [of_device for of_device, _ in driver.images.values()] == [0, 1]
    assert sorted(backend._reports) == [0, 1]


def test_a_launch_goes_to_the_device_of_the_images_which_is_not_the_current_one(driver):
    driver.tensors_on = 1

    mixed(*batch(4), mixed_plan(4, 16, 16))

    assert (driver.launched[0].device, driver.device) == (1, 0)


@pytest.mark.parametrize(
    ("capability", "architecture"),
    [((7, 5), 75), ((8, 9), 89), ((9, 0), 90), ((10, 0), 100), ((10, 3), 103), ((12, 1), 121)],
)
def test_a_gpu_gets_machine_code_of_its_major_version(driver, capability, architecture):
    driver.capabilities = (capability,)

    mixed(*batch(4), mixed_plan(4, 16, 16))

    [(_, image)] = driver.images.values()
    flags = int.from_bytes(image[48:52], "little")
    found = flags >> 8 & 0xFF if flags & 0xFF == 2 else flags & 0xFF
    assert image.startswith(stand_in.ELF)
    assert architecture // 10 * 10 <= found <= architecture


def test_a_gpu_that_nvrtc_does_not_know_gets_ptx_which_is_executed_here(driver):
    driver.capabilities = ((13, 0),)

    mixed(*batch(4), mixed_plan(4, 16, 16))

    [(_, image)] = driver.images.values()
    assert b".target sm_" in image


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (1, "INVALID_VALUE"), (2, "OUT_OF_MEMORY"), (700, "ILLEGAL_ADDRESS"),
        (716, "MISALIGNED_ADDRESS"), (719, "LAUNCH_FAILED"),
    ],
)  # fmt: skip
def test_a_launch_that_fails_names_the_kernel(driver, code, name):
    images, labels = batch(4)
    driver.fail_launch = code

    with pytest.raises(RuntimeError, match=rf"mix<UINT8, .*grid \(4, 2, 1\).*CUDA_ERROR_{name}"):
        mixed(images, labels, mixed_plan(4, 16, 16))

    driver.fail_launch = 0
    mixed(images, labels, mixed_plan(4, 16, 16))


@pytest.mark.parametrize(
    ("code", "name"), [(209, "NO_BINARY_FOR_GPU"), (222, "UNSUPPORTED_PTX_VERSION")]
)
def test_a_driver_that_does_not_load_the_code_is_named_with_its_version(driver, code, name):
    driver.fail_load = code

    with pytest.raises(
        RuntimeError, match=rf"for sm_90: the driver, of CUDA 12\.9, .*{name}.*update the driver"
    ):
        mixed(*batch(4), mixed_plan(4, 16, 16))


def test_a_bad_label_is_raised_by_the_next_batch_of_a_loader(driver):
    images, labels = batch(4)
    fetched = []

    def source():
        for wrong in (False, True, False, False):
            fetched.append(wrong)
            yield images, torch.where(torch.arange(4) == 2, 99, labels) if wrong else labels

    loader = iter(MixupLoader(source(), Mixup(num_classes=9)))
    next(loader)
    _, targets = next(loader)

    assert targets[2].isnan().all()
    with pytest.raises(ValueError, match="99"):
        next(loader)
    assert fetched == [False, True]
    next(loader)


# ---- other batches ------------------------------------------------------------------------------


@pytest.mark.parametrize("out_layout", ["CHW", "HWC"])
def test_the_means_of_many_channels_are_copied_to_a_gpu_once(driver, out_layout):
    images = torch.from_numpy(pixels("uint16", (5, 8, 8, 6)))
    output = OutputFormat("float16", out_layout, mean=tuple(range(6)), std=tuple(range(40, 46)))
    plan = mixed_plan(5, 8, 8)

    outs = [backend.blend(images, plan, output, layout="HWC") for _ in range(2)]

    want = reference.blend(images.numpy(), plan, output, layout="HWC")
    tables = [int.from_bytes(launch.parameters[0][-8:], "little") for launch in driver.launched]
    assert tables[0] == tables[1] != 0
    assert [out.numpy().tobytes() for out in outs] == [want.tobytes()] * 2


def test_means_that_are_not_on_a_gpu_yet_are_refused_in_a_graph(driver):
    images = torch.from_numpy(pixels("uint8", (5, 8, 8, 7)))
    output = OutputFormat("float16", mean=tuple(range(7)))
    plan = DevicePlan(mixed_plan(5, 8, 8), "cpu")
    driver.capturing = True

    with pytest.raises(RuntimeError, match=r"those of 7 channels .* call warm_up before"):
        backend.blend(images, plan, output, layout="HWC")

    driver.capturing = False
    backend.warm_up(tuple(images.shape), torch.uint8, output, num_classes=9, device="cpu")
    driver.capturing = True
    mixed = backend.blend(images, plan, output, layout="HWC")
    want = reference.blend(images.numpy(), plan.plan, output, layout="HWC")
    assert mixed.numpy().tobytes() == want.tobytes()


@pytest.mark.parametrize("size", [5, 65, 2039])
def test_images_masks_and_heads_are_a_launch_each(driver, size):
    images, labels = batch(size, side=4)
    masks = torch.from_numpy(np.random.default_rng(0).integers(-9, 9, (size, 4, 4)))
    mixup = Mixup(
        num_classes={"first": 9, "second": 9}, alpha=0, cutmix_alpha=1.0, mode="elem", layout="HWC"
    )
    plan = mixup.plan(size, (4, 4))

    out, targets = mixup(images, (labels, labels.int()), plan=plan)
    mixed_masks = mixup.mix_masks(masks, plan)

    assert [launch.kernel.partition("<")[0] for launch in driver.launched] == [
        "mix",
        "mix",
        "select",
    ]
    assert targets[0].equal(targets[1])
    want = reference.mix_masks(masks.numpy(), plan)
    assert mixed_masks.numpy().tobytes() == want.tobytes()
    want = reference.blend(images.numpy(), plan, layout="HWC")
    assert out.numpy().tobytes() == want.tobytes()


# ---- graphs -------------------------------------------------------------------------------------


def test_a_captured_launch_reads_the_plan_of_each_replay(driver):
    images, labels = batch(4)
    first, second = mixed_plan(4, 16, 16), MixPlan([3, 2, 1, 0], [0.1, 0.2, 0.3, 0.4])
    plan = DevicePlan(first, "cpu")
    driver.capturing = True
    out, soft = mixed(images, labels, plan)
    driver.capturing = False

    plan.update(second)
    driver.execute(driver.launched[0])

    want = cpu.mix(images.numpy(), labels.numpy(), second, HALF, **SETTINGS)
    assert_equal((out, soft), want)


def test_what_a_graph_would_copy_from_freed_memory_is_refused(driver):
    images, labels = batch(4)
    plan = DevicePlan(mixed_plan(4, 16, 16), "cpu")
    driver.capturing = True

    with pytest.raises(RuntimeError, match="got a MixPlan"):
        mixed(images, labels, plan.plan)
    with pytest.raises(RuntimeError, match="made and updated outside"):
        plan.update(plan.plan)
    with pytest.raises(RuntimeError, match="made and updated outside"):
        DevicePlan(plan.plan, "cpu")
    on_gpu = SimpleNamespace(device=torch.device("cuda", 0))
    with pytest.raises(RuntimeError, match="labels: expected on cuda:0 while a CUDA graph"):
        backend._labels_for(on_gpu, labels, 4, 9, "soft")

    assert not driver.launched


# ---- threads ------------------------------------------------------------------------------------


def test_threads_that_make_the_first_call_at_once_load_one_kernel_and_make_one_report(driver):
    images, labels = batch(4)
    plan = mixed_plan(4, 16, 16)
    together = Barrier(8)

    def first_call(_):
        together.wait()
        return backend.mix(images, labels, plan, HALF, **SETTINGS)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(first_call, range(8)))

    want = cpu.mix(images.numpy(), labels.numpy(), plan, HALF, **SETTINGS)
    for got in results:
        assert_equal(got, want)
    assert (
        len(driver.images) == len({launch.parameters[0][40:48] for launch in driver.launched}) == 1
    )


# ---- loaders, and the command -------------------------------------------------------------------


def test_an_iterator_over_a_pipeline_hands_out_what_the_reference_makes(driver, tmp_path):
    for number in range(8):
        folder = tmp_path / str(number % 3)
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels("uint8", (40, 50, 3), seed=number)).save(folder / f"{number}.png")

    def pipeline():
        return image_pipeline(
            tmp_path, batch_size=4, image_size=32, device="cpu", output_layout="HWC", num_threads=1,
            seed=3,
        )  # fmt: skip

    plain = DALIGenericIterator(pipeline(), ["data", "label"], reader_name="Reader")
    mixup = Mixup(num_classes=3, cutmix_alpha=1.0, output=HALF)
    loader = MixupClassificationIterator(
        pipeline(), mixup=mixup, reader_name="Reader", plan_key="plan"
    )

    batches = 0
    for (got,), (raw,) in zip(loader, plain, strict=True):
        want = cpu.mix(
            raw["data"].numpy(), raw["label"].numpy().ravel(), got["plan"], HALF,
            layout="HWC", num_classes=3, label_smoothing=0.0, targets="soft",
        )  # fmt: skip
        assert_equal((got["data"], got["label"]), want)
        batches += 1

    assert batches == len(driver.launched) == 2


@pytest.mark.parametrize("version", [12000, 12090])
def test_the_doctor_tries_batches_of_every_way_that_a_plan_goes(driver, monkeypatch, version):
    driver.version = version
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)

    said = doctor._kernel_equals_the_reference()

    assert said == "equals the reference in every bit, in batches of 9 and 65 and 2040"
    assert len(driver.launched) == 3
