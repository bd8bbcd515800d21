"""Whether the kernel's source, compiled for the CPU, shows a planted bug: ``NUMBER`` of BUGS.

Exits with 0 where every batch equals the reference; a fault ends the process.
"""

import sys

import numpy as np
from support.guarded import GuardedBuffer
from support.host_shim import HostKernels
from support.kernel_cases import same_bits
from support.planted_bugs import BUGS, bad_labels, batches, reported
from support.ptx_batch import LABEL_FORMS, as_bytes

from dali_mixup.backends.cuda.launch import LabelArguments, batch_parameters, plan_parameters


def guarded(content):
    size = content if isinstance(content, int) else content.size
    buffer = GuardedBuffer(size, None)
    if not isinstance(content, int):
        buffer.bytes[:] = content
    return buffer


def equals_the_reference(kernels, batch):
    """Compare all that is written but the report, whose words are returned."""
    want, targets = batch.expected_images(), batch.expected_targets()
    report = guarded(np.zeros(16, np.uint8))
    images = None if want is None else GuardedBuffer(batch.images.nbytes, batch.shifts[0])
    out = None if want is None else GuardedBuffer(want.nbytes, batch.shifts[1])
    if images is not None:
        images.bytes[:] = as_bytes(batch.images)
    labels, soft = guarded(as_bytes(batch.labels)), guarded(targets[-1].nbytes)
    ids = guarded(16 * len(batch.plan)) if len(targets) == 3 else None
    arguments = LabelArguments(
        LABEL_FORMS[batch.labels.dtype.name], labels.address, soft.address,
        ids.address if ids else 0, report.address, batch.num_classes, batch.label_smoothing,
    )  # fmt: skip
    samples = plan_parameters(batch.plan)
    launch = batch.launch()
    packed = batch_parameters(
        batch.form(), images.address if images else 0, out.address if out else 0, arguments
    )
    kernels.run(
        launch.kernel, launch.grid, bytes(packed), np.array([samples.ctypes.data], np.uint64)
    )
    for buffer in filter(None, (images, out, labels, soft, ids, report)):
        buffer.open()
    if out is not None:
        got = out.bytes.copy().view(want.dtype).reshape(want.shape)
        assert same_bits(got, want)
    assert same_bits(soft.bytes.copy().view(np.float32), targets[-1].reshape(-1))
    if ids is not None:
        assert ids.bytes.tobytes() == b"".join(part.tobytes() for part in targets[:2])
    return report.bytes.copy().view(np.int32).tolist()


if __name__ == "__main__":
    bad = list(bad_labels())
    every = [*batches(), *(batch for batch, _ in bad)]
    for batch in every:
        batch.by_pointer = True
    names = sorted({batch.launch().kernel for batch in every})
    source = BUGS[int(sys.argv[1])].source
    kernels = HostKernels(source, {"one": names[::2], "two": names[1::2]})
    for batch in every[: -len(bad)]:
        assert not any(equals_the_reference(kernels, batch))
    for batch, report in bad:
        assert reported(equals_the_reference(kernels, batch)) == report
