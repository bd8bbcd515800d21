"""The CPU backend against the reference: compiled loops, threads, forked processes."""

import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from support.batches import mixed_plan, pixels
from support.formula import assert_same_bits, formula, to_bfloat16, to_float32
from support.requirements import require

from dali_mixup import MixPlan, Mixup, MixupLoader, OutputFormat
from dali_mixup.advice import UncompiledWarning
from dali_mixup.backends import cpu, reference, threads
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


def require_loops():
    require("numba")
    from dali_mixup.backends import loops

    return loops


def compiled(*batch, **settings):
    """Mix by the compiled loops, or fail."""
    require_loops()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return cpu.blend(*batch, **settings)


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


@pytest.mark.parametrize("layout", list(SHAPES))
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_loops_change_no_bit(dtype, layout):
    images = images_of(dtype, (B, *SHAPES[layout]))
    height, width = (SHAPES[layout][layout.index(side)] for side in "HW")
    for plan, output in itertools.product(plans(height, width), outputs(dtype, layout)):
        got = compiled(images, plan, output, layout=layout)

        assert_same_bits(got, reference.blend(images, plan, output, layout=layout))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("out_layout", ["CHW", "HWC"])
def test_images_of_more_pixels_than_are_mixed_at_once(layout, out_layout, channels):
    height, width = 5, 251
    assert require_loops().RUN < height * width < 3 * require_loops().RUN
    shape = (channels, height, width) if layout == "CHW" else (height, width, channels)
    images = pixels("uint8", (3, *shape))
    mean, std = np.arange(channels) + 7.5, np.arange(channels) + 40.0
    output = OutputFormat(dtype="float32", layout=out_layout, mean=mean, std=std)
    box = [[0, 0, 0, 0], [1, 4, 3, 250], [0, 5, 0, 251]]
    for plan in (MixPlan([1, 2, 0], [0.3, 0.6, 0.9]), MixPlan([1, 2, 0], [0.3] * 3, box)):
        got = compiled(images, plan, output, layout=layout)

        assert_same_bits(got, reference.blend(images, plan, output, layout=layout))


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_reference_equals_the_formula(dtype, layout):
    images = images_of(dtype, (B, *SHAPES[layout]))
    for plan, output in itertools.product(plans(6, 10), outputs(dtype, layout)):
        got = reference.blend(images, plan, output, layout=layout)

        assert_same_bits(got, formula(images, plan, output, layout))


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("at", [np.s_[::2, ..., ::2], np.s_[1:14], np.s_[::-2]])
def test_images_that_are_not_contiguous(layout, at):
    images = pixels("float32", (2 * B, 4, 6, 20))[at][:B]
    output = OutputFormat(layout="HWC", mean=2.0)
    images = images if layout == "CHW" else images.transpose(0, 2, 3, 1)

    got = compiled(images, EACH_ITS_OWN, output, layout=layout)

    assert_same_bits(got, reference.blend(images, EACH_ITS_OWN, output, layout=layout))


def test_an_output_that_is_not_contiguous():
    images = pixels("uint8", (B, 3, 6, 10))
    output = OutputFormat(dtype="float32")
    out = np.full((B, 3, 6, 20), -1, np.float32)

    compiled(images, WEIGHED, output, out=out[..., ::2])

    assert_same_bits(out[..., ::2], reference.blend(images, WEIGHED, output))
    assert (out[..., 1::2] == -1).all()


@pytest.mark.parametrize("dtype", [">f4", ">f2", ">u2"])
@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_images_in_another_order_of_bytes(dtype, layout):
    native = pixels(np.dtype(dtype).newbyteorder("=").name, (B, 4, 4, 4))
    output = OutputFormat(dtype="float32", layout="HWC", mean=2.0)
    want = reference.blend(native, EACH_ITS_OWN, output, layout=layout)
    out = np.empty(want.shape, ">f4")

    for images in (native, native.astype(dtype)):
        assert_same_bits(compiled(images, EACH_ITS_OWN, output, layout=layout), want)
        compiled(images, EACH_ITS_OWN, output, layout=layout, out=out)
        assert (out == want).all()


@pytest.mark.parametrize("module", [cpu, reference])
def test_an_output_that_cannot_be_written_to_is_refused(module):
    images, labels, memory = pixels("float32", (B, 3, 6, 10)), np.arange(B), np.zeros((B, 3, 6, 10))
    memory, soft = memory.astype(np.float32), np.zeros((B, B), np.float32)
    out, soft_out = memory.view(), soft.view()
    out.setflags(write=False)
    soft_out.setflags(write=False)

    with pytest.raises(ValueError, match="out: expected an array that can be written to"):
        module.blend(images, WEIGHED, out=out)
    with pytest.raises(ValueError, match="out: expected an array that can be written to"):
        module.soft_labels(labels, WEIGHED, B, out=soft_out)

    assert not memory.any()
    assert not soft.any()


def test_nothing_is_written_outside_the_output():
    images = images_of("float16", (B, 3, 6, 10))
    for plan, output in itertools.product(plans(6, 10), outputs("float16", "CHW")):
        if output.channels_last:
            continue
        want = reference.blend(images, plan, output)
        memory = np.zeros((B + 2, *want.shape[1:]), want.dtype)
        before = memory.copy()

        compiled(images, plan, output, out=memory[1:-1])

        assert memory[[0, -1]].tobytes() == before[[0, -1]].tobytes()
        assert_same_bits(memory[1:-1], want)


def test_the_images_are_not_written_to():
    images = pixels("float32", (B, 3, 6, 10))
    images.setflags(write=False)
    for plan in plans(6, 10):
        compiled(images, plan)


def test_several_threads_of_a_program_mix_at_the_same_time():
    batches = [pixels("uint8", (B, 6, 10, 3), seed) for seed in range(8)]
    output = OutputFormat(dtype="float32", layout="CHW", mean=3.0)
    want = [reference.blend(images, WEIGHED, output, layout="HWC") for images in batches]
    wrong = []

    def mix(number):
        for _ in range(50):
            got = cpu.blend(batches[number], WEIGHED, output, layout="HWC", workers=2)
            if not np.array_equal(got, want[number]):
                wrong.append(number)

    programs = [threading.Thread(target=mix, args=(number,)) for number in range(len(batches))]
    for program in programs:
        program.start()
    for program in programs:
        program.join()
    assert not wrong


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_threads_share_all_samples(size, workers):
    done = []

    threads.share(lambda first, last: done.append((first, last)), size, workers)

    assert sorted(sample for part in done for sample in range(*part)) == list(range(size))


@pytest.mark.parametrize("error", [ValueError, IndexError])
def test_the_error_of_a_part_is_raised(error):
    def work(first, last):
        if first:
            raise error("in one of the parts")

    with pytest.raises(error, match="in one of the parts"):
        threads.share(work, 4, 2)


def test_nothing_is_written_once_an_error_is_raised():
    done, started = [], threading.Event()

    def work(first, last):
        if threading.current_thread() is threading.main_thread():
            started.wait(5)
            raise KeyboardInterrupt
        started.set()
        time.sleep(0.05)
        done.append(first)

    with pytest.raises(KeyboardInterrupt):
        threads.share(work, 100, 2)

    before = len(done)
    time.sleep(0.2)
    assert before == len(done) == 1


def test_a_program_that_ends_mixes_without_other_threads():
    program = """if True:
        import atexit
        from dali_mixup.backends import threads
        done = []

        @atexit.register
        def mix():
            threads.share(lambda first, last: done.extend(range(first, last)), 9, 2)
            assert sorted(done) == list(range(9))
            print("all samples")
    """

    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)

    assert said.stdout == b"all samples\n"


def test_threads_are_kept_and_no_more_than_are_needed():
    before = threading.active_count()

    for workers in [2, 3, 2, 4, 3] * 5:
        threads.share(lambda first, last: None, 16, workers)

    assert threading.active_count() <= max(before, 1 + 3 + 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_that_is_forked_while_another_thread_compiles_mixes(tmp_path):
    require_loops()
    program = """if True:
        import os, threading, time
        import numpy as np
        from dali_mixup.backends import cpu, loops
        from dali_mixup.plan import unmixed
        images = np.ones((2, 1, 2, 2), np.float32)
        compiling = threading.Thread(target=cpu.blend, args=(images, unmixed(2)))
        compiling.start()
        time.sleep(0.3)
        child = os.fork()
        if not child:
            threading.Timer(60, os._exit, (2,)).start()
            cpu.blend(images, unmixed(2))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        compiling.join()
    """

    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


@pytest.fixture
def two_threads(torch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def used(torch, monkeypatch):
    """How many threads mixed each batch."""
    from dali_mixup.backends import torch_cpu

    numbers = []
    count = torch_cpu._workers
    monkeypatch.setattr(
        torch_cpu, "_workers", lambda images: (numbers.append(count(images)), numbers[-1])[1]
    )
    return numbers


def test_as_many_threads_as_torch_has_mix_large_batches(torch, two_threads, used):
    require_loops()
    mixup, large = Mixup(num_classes=16), torch.zeros(16, 3, 224, 224)

    mixup(large, torch.arange(16))
    mixup(large[:2], torch.arange(2))
    torch.set_num_threads(1)
    mixup(large, torch.arange(16))

    assert used == [2, 1, 1]


def test_a_loader_mixes_in_one_thread(torch, two_threads, used):
    require_loops()
    images, labels = torch.zeros(16, 3, 224, 224), torch.arange(16)
    mixup = Mixup(num_classes=16)

    next(iter(MixupLoader([(images, labels)], mixup=mixup)))
    mixup(images, labels)

    assert used == [1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(torch, two_threads):
    require_loops()
    images, plan = torch.rand(16, 3, 224, 224), unmixed(16)
    mixup = Mixup(num_classes=8)
    want, _ = mixup.mix(images, None, plan)

    child = os.fork()
    if not child:
        threading.Timer(20, os._exit, (2,)).start()
        got, _ = mixup.mix(images, None, plan)
        os._exit(int(not np.array_equal(got.numpy(), want.numpy())))

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _near(dtype):
    """float32 at, between and beside all values of a 16-bit dtype, and at random."""
    bits = np.arange(1 << 16, dtype=np.uint32)
    if dtype == "bfloat16":
        every = (bits << 16).view(np.float32)
    else:
        every = bits.astype(np.uint16).view(np.float16).astype(np.float32)
    finite = np.unique(every[np.isfinite(every)]).astype(np.float64)
    middle = ((finite[1:] + finite[:-1]) / 2).astype(np.float32)
    values = np.concatenate([every, middle])
    values = np.concatenate([np.nextafter(values, F) for F in (-np.inf, np.inf)] + [values])
    rng = np.random.default_rng(0)
    return np.concatenate([values, rng.integers(0, 2**32, 300_000, np.uint32).view(np.float32)])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_float32_is_rounded_to_nearest_even(dtype):
    values = _near(dtype)
    want = to_bfloat16(values) if dtype == "bfloat16" else values.astype(dtype)

    got = compiled(values.reshape(1, 1, 1, -1), unmixed(1), OutputFormat(dtype=dtype))

    assert_same_bits(got.reshape(-1), want)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_value_of_16_bits_is_read_exactly(dtype):
    bits = np.arange(1 << 16, dtype=np.uint16)
    every = bits.view(BFLOAT16 if dtype == "bfloat16" else np.float16)

    got = compiled(every.reshape(1, 1, 1, -1), unmixed(1), OutputFormat(dtype="float32"))

    assert_same_bits(got.reshape(-1), to_float32(every))


@pytest.mark.parametrize("dtype", ["uint8", "float16", "bfloat16", "float32"])
def test_tensors_are_mixed_alike_by_any_number_of_threads(torch, monkeypatch, dtype, two_threads):
    require_loops()
    monkeypatch.setattr("dali_mixup.backends.torch_cpu.WORTH_A_THREAD", 1)
    images = (torch.rand(B, 3, 120, 120) * 255).to(getattr(torch, dtype))
    output = OutputFormat(dtype="float16", channels_last=True, mean=99.0, std=50.0)
    results = []
    for number in (3, 2, 1):
        torch.set_num_threads(number)
        mixup = Mixup(num_classes=B, cutmix_alpha=1.0, mode="elem", output=output)
        results.append(mixup(images, torch.arange(B))[0].view(torch.int16))
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[2])


LARGE = np.ones((8, 3, 224, 224), np.float32)


def test_without_numba_numpy_mixes_and_says_so():
    program = """if True:
        import sys, warnings
        sys.modules["numba"] = None
        import numpy as np
        from dali_mixup.backends import cpu
        from dali_mixup.plan import unmixed
        images = np.ones((8, 3, 224, 224), np.float32)
        with warnings.catch_warnings(record=True) as caught:
            assert (cpu.blend(images[:1], unmixed(1)) == 1).all()
            assert not caught
            assert (cpu.blend(images, unmixed(8)) == 1).all()
        [warning] = caught
        assert warning.category.__name__ == "UncompiledWarning"
        assert "pip install --upgrade numba" in str(warning.message)
    """

    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_processor_without_float16_leaves_it_to_numpy(monkeypatch):
    monkeypatch.setattr(require_loops(), "converts_float16", lambda: False)
    half = OutputFormat(dtype="float16")

    with pytest.warns(UncompiledWarning, match="without instructions for float16"):
        mixed = cpu.blend(LARGE, unmixed(8), half)

    assert (mixed == LARGE).all()
    assert mixed.dtype == np.float16
    compiled(LARGE, unmixed(8))


@pytest.mark.parametrize(
    "variables",
    [{"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_CPU_NAME": "generic"}, {"NUMBA_CPU_FEATURES": ""}],
)
def test_settings_of_numba_change_no_bit(variables):
    require_loops()
    program = """if True:
        import numpy as np
        from dali_mixup import MixPlan, OutputFormat
        from dali_mixup.backends import cpu, reference
        images = np.random.default_rng(0).random((3, 3, 8, 8), np.float32)
        batch = images, MixPlan([1, 2, 0], [0.3] * 3), OutputFormat(dtype="float16", mean=0.4)
        assert cpu.blend(*batch).tobytes() == reference.blend(*batch).tobytes()
    """

    subprocess.run([sys.executable, "-c", program], env=os.environ | variables, check=True)


def test_a_folder_that_cannot_be_written_to_costs_the_cache_alone(tmp_path):
    require_loops()
    package = Path(cpu.__file__).parents[1]
    shutil.copytree(package, tmp_path / "dali_mixup", ignore=shutil.ignore_patterns("__pycache__"))
    program = """if True:
        from numba.core import caching
        caching.CacheImpl._locator_classes = []  # no folder can be written to
        import numpy as np
        from dali_mixup import MixPlan
        from dali_mixup.backends import cpu, loops
        images = np.eye(4, dtype=np.float32).reshape(4, 1, 2, 2)
        cpu.blend(images, MixPlan([1, 2, 3, 0], [0.5] * 4))
        assert len(loops.mix_samples.signatures) == 1
    """

    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
