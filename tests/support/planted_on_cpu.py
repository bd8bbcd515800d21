"""Whether the kernel's source, compiled for the CPU, shows a planted bug: ``NUMBER`` of BUGS.

Exits with 0 where every batch equals the reference; a fault ends the process.
"""

import sys

from support.host_batch import run, run_masks
from support.host_shim import HostKernels
from support.planted_bugs import BUGS, bad_labels, batches, mask_batches, reported

if __name__ == "__main__":
    every = [*((batch, None) for batch in batches()), *bad_labels()]
    for batch, _ in every:
        batch.by_pointer = True
    masks = list(mask_batches())
    for batch in masks:
        batch.by_pointer = True
    names = sorted({batch.launch().kernel for batch in (*(batch for batch, _ in every), *masks)})
    source = BUGS[int(sys.argv[1])].source
    kernels = HostKernels(source, {"one": names[::2], "two": names[1::2]})
    for batch, report in every:
        found, words = run(kernels, batch)
        assert not found, found
        assert (reported(words) if any(words) else None) == report
    for batch in masks:
        run_masks(kernels, batch)
