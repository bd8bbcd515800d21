"""DALI's dynamic mode, torchdata's nodes over it, and its torchvision-like API."""

import numpy as np
import pytest
from support.requirements import require

torch = require("torch")
tn = require("torchdata.nodes", backend="dali")
ndd = require("nvidia.dali.experimental.dynamic", backend="dynamic")
dali_nodes = require("nvidia.dali.experimental.dynamic.pytorch.nodes", backend="dynamic")

from dali_mixup import Mixup, OutputFormat  # noqa: E402
from dali_mixup.loaders.nodes import MixupNode  # noqa: E402

SETTINGS = {"num_classes": 3, "mode": "elem", "alpha": 1.0}
OUTPUT = OutputFormat(dtype="float32", layout="CHW", mean=127.5, std=127.5)


def dynamic_batches(folder):
    reader = ndd.readers.File(file_root=str(folder), max_batch_size=4)
    for encoded, labels in reader.next_epoch(batch_size=4):
        images = ndd.resize(ndd.decoders.image(encoded, device="cpu"), size=(32, 32))
        yield images.torch(), labels.torch()


def dali_chain(folder):
    """Reader, decode and resize, ToTorch, as in DALI's example."""
    reader = dali_nodes.Reader(ndd.readers.File, batch_size=4, file_root=str(folder))
    images = dali_nodes.DictMapper(
        reader, lambda data: ndd.resize(ndd.decoders.image(data, device="cpu"), size=(32, 32))
    )
    return dali_nodes.ToTorch(images)


def numbered(count=5):
    """A node whose batches are told apart by their first pixel, and whose state is its position."""
    batches = [
        (torch.full((3, 8, 8, 3), 40 * step, dtype=torch.uint8), torch.arange(3))
        for step in range(count)
    ]
    return tn.IterableWrapper(batches)


def test_batches_of_dynamic_mode_are_mixed_by_a_call(photo_folder):
    ours = Mixup(**SETTINGS, output=OUTPUT)

    mixed = [ours(images, labels) for images, labels in dynamic_batches(photo_folder)]

    assert [tuple(images.shape) for images, _ in mixed] == [(4, 3, 32, 32)] * len(mixed)
    assert len(mixed) == 4
    assert all(torch.allclose(soft.sum(1), torch.ones(len(soft))) for _, soft in mixed)


def test_a_batch_of_dynamic_mode_that_is_no_tensor_says_what_to_do(photo_folder):
    encoded, labels = next(iter(ndd.readers.File(file_root=str(photo_folder)).next_epoch(4)))
    images = ndd.resize(ndd.decoders.image(encoded, device="cpu"), size=(32, 32))

    with pytest.raises(
        TypeError, match=r"got Batch; a batch of DALI's dynamic mode .* \.torch\(\)"
    ):
        Mixup(**SETTINGS)(images, labels)


def test_a_node_behind_totorch_mixes_what_a_call_would(photo_folder):
    mixing = tn.Loader(MixupNode(dali_chain(photo_folder), Mixup(**SETTINGS)))
    plain = tn.Loader(dali_chain(photo_folder))
    by_hand = Mixup(**SETTINGS)

    for epoch in range(2):
        by_hand.set_epoch(epoch)
        expected = [by_hand(*batch) for batch in plain]

        handed_out = list(mixing)

        assert len(handed_out) == len(expected) > 2
        for got, want in zip(handed_out, expected, strict=True):
            assert torch.equal(got[0], want[0])
            assert torch.equal(got[1], want[1])


def test_a_node_goes_on_where_its_state_stands():
    whole = tn.Loader(MixupNode(numbered(), Mixup(**SETTINGS)))
    expected = [*whole, *whole]
    stopped = tn.Loader(MixupNode(numbered(), Mixup(**SETTINGS)))
    iterator = iter(stopped)
    first = [next(iterator) for _ in range(3)]
    resumed = tn.Loader(MixupNode(numbered(), Mixup(**SETTINGS)))

    resumed.load_state_dict(stopped.state_dict())

    got = [*first, *resumed, *resumed]
    assert len(got) == len(expected) == 10
    for (images, soft), (want_images, want_soft) in zip(got, expected, strict=True):
        assert torch.equal(images, want_images)
        assert torch.equal(soft, want_soft)


def test_a_pass_that_is_left_counts_as_an_epoch():
    node = MixupNode(numbered(), Mixup(**SETTINGS))
    loader = tn.Loader(node)
    next(iter(loader))

    next(iter(loader))

    assert (node.mixer.epoch, node.mixer.step) == (1, 1)


def test_an_epoch_can_be_begun_by_its_number():
    whole = tn.Loader(MixupNode(numbered(), Mixup(**SETTINGS)))
    list(whole)
    node = MixupNode(numbered(), Mixup(**SETTINGS))

    node.set_epoch(1)

    for got, want in zip(tn.Loader(node), whole, strict=True):
        assert torch.equal(got[1], want[1])


def test_an_epoch_that_is_set_in_its_middle_begins_again():
    node = MixupNode(numbered(), Mixup(**SETTINGS))
    loader = tn.Loader(node)
    node.set_epoch(2)
    whole = list(loader)
    node.set_epoch(2)
    batches = iter(loader)
    next(batches)
    next(batches)

    node.set_epoch(2)

    for got, want in zip(loader, whole, strict=True):
        assert torch.equal(got[1], want[1])


def test_the_epoch_after_one_that_was_set_is_the_next():
    node = MixupNode(numbered(), Mixup(**SETTINGS))
    loader = tn.Loader(node)
    node.set_epoch(4)
    list(loader)

    next(iter(loader))

    assert (node.mixer.epoch, node.mixer.step) == (5, 1)


def test_what_is_no_node_is_refused():
    with pytest.raises(TypeError, match=r"source: expected a torchdata node, got .*MixupLoader"):
        MixupNode([], Mixup(**SETTINGS))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="DALI 2.4 asks torch for a CUDA stream")
def test_batches_of_dalis_torchvision_are_mixed_by_a_call():
    dali_v2 = require("nvidia.dali.experimental.torchvision", backend="dali")
    transform = dali_v2.Compose([dali_v2.Resize((32, 32), device="cpu")], batch_size=4)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 48, 64), np.uint8))
    labels = torch.arange(4) % 3

    resized = transform(images)
    mixed, soft = Mixup(**SETTINGS, output=OUTPUT)(resized, labels)

    assert mixed.shape == (4, 3, 32, 32)
    assert mixed.dtype == torch.float32
    assert soft.shape == (4, 3)
