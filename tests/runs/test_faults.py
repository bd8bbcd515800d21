"""What goes wrong in weeks of use: an error that says why, or correct data; see the README."""

from __future__ import annotations

import itertools
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.requirements import require

require("torch", "dali")
require("nvidia.dali")

from nvidia.dali import fn, pipeline_def  # noqa: E402
from PIL import Image  # noqa: E402

from dali_mixup import Mixup, MixupClassificationIterator, image_pipeline  # noqa: E402


@pytest.fixture
def folder(tmp_path):
    """Two classes of four JPEGs."""
    rng = np.random.default_rng(0)
    for index in range(8):
        path = tmp_path / "ab"[index // 4] / f"{index}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path, quality=95)
    return tmp_path


def loader_over(folder, num_classes=2, **options):
    pipe = image_pipeline(folder, 4, 32, "cpu", num_threads=1, seed=3)
    mixup = Mixup(num_classes=num_classes, mode="elem")
    return MixupClassificationIterator(pipe, reader_name="Reader", mixup=mixup, **options)


def as_bytes(batch):
    return [out[name].numpy().tobytes() for out in batch for name in ("data", "label")]


def spoil_truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_empty(path):
    path.write_bytes(b"")


def spoil_text(path):
    path.write_text("not a photograph")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_truncated, "Failed to decode sample .*2.jpg"),
        (spoil_empty, "File mapping failed: .*2.jpg"),
        (spoil_text, "nvImageCodec failure"),
    ],
)
def test_a_file_that_is_no_image_is_dalis_error_and_a_fresh_iterator_works(folder, spoil, message):
    path = folder / "a" / "2.jpg"
    good = path.read_bytes()
    spoil(path)

    with pytest.raises(RuntimeError, match=f"(?s){message}"):
        list(loader_over(folder))

    path.write_bytes(good)
    assert len(list(loader_over(folder))) == 2


def test_unusual_images_are_decoded_to_rgb_and_mixed_as_any_other(folder):
    Image.open(folder / "a" / "1.jpg").convert("CMYK").save(folder / "a" / "1.jpg")
    (folder / "b" / "5.jpg").unlink()
    depth = (np.arange(48 * 64, dtype=np.uint16) * 20).reshape(48, 64)
    Image.fromarray(depth).save(folder / "b" / "5.png")

    batches = list(loader_over(folder))

    assert [tuple(out["data"].shape) for (out,) in batches] == [(4, 32, 32, 3)] * 2
    assert all(out["data"].float().std() > 1 for (out,) in batches)


def test_a_label_outside_the_range_is_named_and_the_next_batch_is_whole(folder):
    loader = loader_over(folder, num_classes=1)

    with pytest.raises(ValueError, match=r"class ids in \[0, 1\), got 1 at row \d; num_classes is"):
        next(loader)

    for name in ("4", "5", "6", "7"):
        (folder / "b" / f"{name}.jpg").rename(folder / "a" / f"{name}.jpg")
    (folder / "b").rmdir()
    assert len(list(loader_over(folder, num_classes=1))) == 2


def test_a_file_that_disappears_between_epochs_is_whole_batches_or_an_error(folder):
    loader = loader_over(folder, auto_reset=True)
    list(loader)
    (folder / "a" / "2.jpg").unlink()

    batches, error = [], None
    try:
        for _ in range(3):
            batches += list(loader)
    except RuntimeError as raised:
        error = str(raised)

    assert all(out["data"].shape == (4, 32, 32, 3) for (out,) in batches)
    assert "2.jpg" in error if error else len(batches) == 6


@pipeline_def(batch_size=2, num_threads=1, device_id=None)
def two_batches():
    images, labels = fn.external_source(source=make_sample, num_outputs=2, batch=False)
    return images, labels


def make_sample(info):
    if info.idx_in_epoch >= 4:
        raise StopIteration
    return np.full((4, 5, 3), info.idx_in_epoch, np.uint8), np.array([info.idx_in_epoch % 2])


def test_a_source_that_ends_early_ends_the_epoch_and_counts_on():
    mixup = Mixup(num_classes=2, layout="HWC")
    loader = MixupClassificationIterator(two_batches(), mixup=mixup, plan_key="plan")
    first = [batch[0]["plan"] for batch in loader]

    loader.reset()
    second = [batch[0]["plan"] for batch in loader]

    assert len(first) == len(second) == 2
    assert second[0].lam.tolist() == mixup.plan(2, epoch=1).lam.tolist()


def test_an_interrupted_step_is_the_next_batchs(folder, monkeypatch):
    loader, undisturbed = loader_over(folder, plan_key="plan"), loader_over(folder, plan_key="plan")
    plans = [batch[0]["plan"].lam.tolist() for batch in undisturbed]
    with monkeypatch.context() as patched:

        def interrupted(*arguments, **keywords):
            raise KeyboardInterrupt

        patched.setattr(Mixup, "mix", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(loader)

    assert next(loader)[0]["plan"].lam.tolist() == plans[0]


def test_an_exception_in_the_loop_loses_no_batch(folder):
    whole = [as_bytes(batch) for batch in loader_over(folder)]
    loader = loader_over(folder)

    def step_that_fails():
        for batch in loader:
            seen.append(as_bytes(batch))
            raise RuntimeError("out of memory")

    seen = []
    with pytest.raises(RuntimeError, match="out of memory"):
        step_that_fails()
    seen += [as_bytes(next(loader))]

    assert seen == whole


def test_two_iterators_alive_at_once_do_not_disturb_each_other(folder):
    alone = [as_bytes(batch) for batch in loader_over(folder)]
    first, second = loader_over(folder), loader_over(folder)

    turns = [(next(first), next(second)) for _ in range(2)]

    assert [as_bytes(batch) for batch, _ in turns] == alone
    assert [as_bytes(batch) for _, batch in turns] == alone


def test_an_iterator_can_be_used_from_another_thread(folder):
    whole = [as_bytes(batch) for batch in loader_over(folder)]
    loader = loader_over(folder)

    with ThreadPoolExecutor(1) as thread:
        batches = thread.submit(list, loader).result(timeout=60)

    assert [as_bytes(batch) for batch in batches] == whole


def prefetching(loader, depth):
    """The batches of a loader, made ahead in a thread."""
    ready: queue.Queue = queue.Queue(depth)

    def work():
        for batch in loader:
            ready.put(batch)
        ready.put(None)

    threading.Thread(target=work, daemon=True).start()
    yield from iter(lambda: ready.get(timeout=60), None)


def test_a_prefetching_generator_hands_out_the_same_batches(folder):
    epochs = 5
    whole = loader_over(folder, auto_reset=True)
    expected = [as_bytes(batch) for _ in range(epochs) for batch in whole]
    loader = loader_over(folder, auto_reset=True)

    batches = itertools.chain.from_iterable(prefetching(loader, 1) for _ in range(epochs))

    assert [as_bytes(batch) for batch in batches] == expected
