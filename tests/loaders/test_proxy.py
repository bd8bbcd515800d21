"""DALI's proxy: its loader, wrapped, hands out mixed batches."""

import numpy as np
import pytest
from support.requirements import require

torch = require("torch")
require("nvidia.dali", backend="dali")

from nvidia.dali import fn, pipeline_def, types  # noqa: E402
from nvidia.dali.plugin.pytorch.experimental import proxy  # noqa: E402

from dali_mixup import Mixup, MixupLoader, OutputFormat  # noqa: E402


@pipeline_def(num_threads=1, device_id=None)
def decoded():
    paths = fn.external_source(name="images", no_copy=True)
    images = fn.decoders.image(fn.io.file.read(paths), device="cpu", output_type=types.RGB)
    return fn.resize(images, size=(32, 32))


class Files(torch.utils.data.Dataset):
    """Class ids, and what the server makes of the paths."""

    def __init__(self, folder, transform):
        self.files = sorted(folder.glob("*/*.jpg"))
        self.classes = sorted({file.parent.name for file in self.files})
        self.transform = transform

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        file = self.files[index]
        path = np.frombuffer(str(file).encode(), np.int8)
        return self.transform(path), self.classes.index(file.parent.name)


@pytest.fixture(autouse=True)
def without_nvtx(monkeypatch):
    """The proxy marks its ranges for a profiler, which a CPU build of torch does not have."""
    if torch.version.cuda is None:
        for name in ("range_push", "range_pop"):
            monkeypatch.setattr(proxy._nvtx, name, lambda *message: None)


def test_a_proxys_loader_is_wrapped_as_any_other(photo_folder):
    mixup = Mixup(num_classes=3, output=OutputFormat(dtype="float32", layout="CHW"))
    with proxy.DALIServer(decoded(batch_size=5, prefetch_queue_depth=2)) as server:
        plain = [
            batch
            for batch in proxy.DataLoader(
                server, Files(photo_folder, server.proxy), batch_size=5, num_workers=1
            )
        ]
    expected = [mixup(images, labels) for images, labels in plain]
    with proxy.DALIServer(decoded(batch_size=5, prefetch_queue_depth=2)) as server:
        loader = MixupLoader(
            proxy.DataLoader(
                server, Files(photo_folder, server.proxy), batch_size=5, num_workers=1
            ),
            Mixup(num_classes=3, output=mixup.output),
        )

        handed_out = list(loader)

    assert [tuple(images.shape) for images, _ in handed_out] == [
        (5, 3, 32, 32), (5, 3, 32, 32), (4, 3, 32, 32),
    ]  # fmt: skip
    for got, want in zip(handed_out, expected, strict=True):
        assert torch.equal(got[0], want[0])
        assert torch.equal(got[1], want[1])
