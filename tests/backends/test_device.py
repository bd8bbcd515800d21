"""What a GPU and its driver decide: the target of the compiler, and how a plan travels."""

import pytest
from support.requirements import require

require("torch", backend="host")
require("cupy", backend="host")

from dali_mixup.backends.cuda import compiler, device  # noqa: E402
from dali_mixup.backends.cuda.launch import label_launch  # noqa: E402

CUDA_12 = (70, 75, 80, 86, 90, 100, 120)
CUDA_13 = (75, 80, 86, 90, 100, 103, 120, 121)


@pytest.mark.parametrize(
    ("capability", "known", "target"),
    [
        ((9, 0), CUDA_12, "sm_90"),
        ((8, 6), CUDA_12, "sm_86"),
        ((8, 9), CUDA_12, "sm_86"),
        ((10, 3), CUDA_12, "sm_100"),
        ((10, 3), CUDA_13, "sm_103"),
        ((12, 1), CUDA_12, "sm_120"),
        ((11, 0), CUDA_12, "compute_100"),
        ((13, 0), CUDA_13, "compute_121"),
    ],
)
def test_the_target_is_the_newest_that_runs_on_the_gpu(monkeypatch, capability, known, target):
    monkeypatch.setattr(compiler.nvrtc, "getSupportedArchs", lambda: known)

    assert compiler.target_for(capability) == target


def test_a_gpu_that_is_too_old_for_the_compiler_is_refused(monkeypatch):
    monkeypatch.setattr(compiler.nvrtc, "getSupportedArchs", lambda: CUDA_13)

    with pytest.raises(RuntimeError, match=r"expected a GPU .* 7\.5 or newer, got 7\.0; install"):
        compiler.target_for((7, 0))


def test_ptx_is_made_for_a_gpu_that_the_compiler_does_not_know():
    kernel = label_launch(64, by_pointer=False).kernel

    compiled = compiler.compile_kernels((kernel,), "compute_90")

    assert b".target sm_90" in compiled.code
    assert compiled.names[0].encode() in compiled.code
    assert compiled.code.endswith(b"\0")


@pytest.mark.parametrize(("driver", "capacity"), [(12000, 64), (11080, 64), (12010, 2038)])
def test_an_old_driver_takes_small_plans_as_parameters(monkeypatch, driver, capacity):
    monkeypatch.setattr(device.runtime, "driverGetVersion", lambda: driver)

    assert device.plan_capacity.__wrapped__() == capacity


def test_the_parameters_of_a_small_plan_fit_into_an_old_driver():
    from dali_mixup.backends.cuda.launch import LabelArguments, batch_parameters, plan_parameters
    from dali_mixup.plan import unmixed

    batch = batch_parameters(None, 0, 0, LabelArguments())
    plan = plan_parameters(unmixed(device.OLD_PLAN_CAPACITY))

    assert len(batch) + plan.nbytes <= 4096
