"""Memory that is used again: never while anybody holds it, and always once nobody does."""

import gc
import threading
import time
import tracemalloc

import numpy as np
import pytest
from support.requirements import require

from dali_mixup.backends import memory
from dali_mixup.backends.memory import Recycler
from dali_mixup.output import BFLOAT16

MEGABYTE = 1 << 20


@pytest.fixture(autouse=True)
def every_size(monkeypatch):
    monkeypatch.setattr(memory, "FEW", 1)


def address(array):
    return array.__array_interface__["data"][0]


def next_address(recycler, nbytes):
    """Where the next array lies; memory that had been freed would be under a decoy by now."""
    decoys = [np.empty(nbytes, np.uint8) for _ in range(8)]
    array = recycler.empty((nbytes,), np.uint8)
    assert not any(np.shares_memory(array, decoy) for decoy in decoys)
    return address(array)


def test_an_array_has_the_shape_and_dtype_that_were_asked_for():
    array = Recycler().empty((2, 3, 4), np.float16)

    assert array.shape == (2, 3, 4)
    assert array.dtype == np.float16
    assert array.flags.c_contiguous
    assert array.flags.writeable


@pytest.mark.parametrize("dtype", ["float32", np.uint8, BFLOAT16])
def test_every_dtype_of_images_is_taken(dtype):
    array = Recycler().empty((4, 2), dtype)

    array[:] = np.ones((), dtype)

    assert array.dtype == dtype
    assert (array == np.ones((), dtype)).all()


@pytest.mark.parametrize("nbytes", [1, 100, MEGABYTE])
def test_memory_that_nobody_holds_is_used_again(nbytes):
    recycler = Recycler()
    array = recycler.empty((nbytes,), np.uint8)
    first = address(array)

    del array

    assert next_address(recycler, nbytes) == first


def test_memory_is_used_again_for_another_shape_and_dtype_of_as_many_bytes():
    recycler = Recycler()
    array = recycler.empty((8, 4), np.float32)
    first = address(array)

    del array

    assert next_address(recycler, 8 * 4 * 4) == first


def test_no_memory_is_asked_for_once_enough_has_come_back():
    recycler = Recycler()
    arrays = [recycler.empty((MEGABYTE,), np.uint8) for _ in range(2)]
    arrays.clear()
    tracemalloc.start()

    for _ in range(5):
        arrays += [recycler.empty((MEGABYTE,), np.uint8) for _ in range(2)]
        arrays.clear()

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MEGABYTE


def test_no_more_is_kept_than_was_asked_for():
    recycler = Recycler(keep=2)
    tracemalloc.start()
    arrays = [recycler.empty((MEGABYTE,), np.uint8) for _ in range(6)]

    arrays.clear()

    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak > 6 * MEGABYTE
    assert 2 * MEGABYTE <= kept < 3 * MEGABYTE


def test_arrays_that_live_at_the_same_time_share_nothing():
    recycler = Recycler()
    arrays = [recycler.empty((64,), np.uint8) for _ in range(3)]
    arrays.clear()

    arrays += [recycler.empty((64,), np.uint8) for _ in range(6)]

    assert len({address(array) for array in arrays}) == 6
    assert not any(np.shares_memory(a, b) for a in arrays for b in arrays if a is not b)


def test_memory_of_another_size_stays_for_who_needs_it():
    recycler = Recycler()
    array = recycler.empty((100,), np.uint8)
    first = address(array)
    del array

    smaller = recycler.empty((99,), np.uint8)
    larger = recycler.empty((101,), np.uint8)

    assert [smaller.nbytes, larger.nbytes] == [99, 101]
    assert next_address(recycler, 100) == first


@pytest.mark.parametrize("shape", [(0,), (0, 3, 4), (2, 0)])
def test_an_array_of_no_bytes_is_an_ordinary_one(shape):
    recycler = Recycler()

    arrays = [recycler.empty(shape, np.float32) for _ in range(2)]

    assert [array.shape for array in arrays] == [shape, shape]
    assert arrays[0].dtype == np.float32


def test_arrays_of_no_bytes_take_no_place_among_what_is_kept():
    recycler = Recycler(keep=1)
    array = recycler.empty((100,), np.uint8)
    first = address(array)
    del array

    for _ in range(3):
        recycler.empty((0, 3), np.uint8)

    assert next_address(recycler, 100) == first


def tensor(array):
    return require("torch").from_numpy(array)


HOLDERS = {
    "the array": lambda array: array,
    "a view": lambda array: array[1:],
    "a view of a view": lambda array: array[1:].T[::2],
    "a reshaped view": lambda array: array.reshape(-1)[3:],
    "a view of another dtype": lambda array: array.view(np.uint8)[2:],
    "the array it is made of": lambda array: array.base,
    "a memoryview": memoryview,
    "a memoryview's part": lambda array: memoryview(array)[1:],
    "an array over a memoryview": lambda array: np.asarray(memoryview(array))[1:],
    "an array over its buffer": lambda array: np.frombuffer(array, np.uint8),
    "a tensor": tensor,
    "a tensor's row": lambda array: tensor(array)[1],
    "a tensor's view of a view": lambda array: tensor(array).view(-1)[2:][::2],
    "a tensor of a view": lambda array: tensor(array[1:]),
    "a tensor of another dtype": lambda array: tensor(array).view(require("torch").int16),
    "a tensor's storage": lambda array: tensor(array).untyped_storage(),
    "an array over a tensor": lambda array: tensor(array).numpy()[1:],
    "an array by DLPack": lambda array: np.from_dlpack(tensor(array)),
    "a tensor by DLPack": lambda array: require("torch").from_dlpack(array),
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_memory_is_used_again_only_once_the_last_holder_is_gone(hold):
    recycler = Recycler()
    array = recycler.empty((4, 6), np.float32)
    array[:] = np.arange(24).reshape(4, 6)
    held = hold(array)
    then, first = held.tolist(), address(array)

    del array
    later = [recycler.empty((4, 6), np.float32) for _ in range(3)]
    for other in later:
        other[:] = 99

    assert first not in map(address, later)
    assert held.tolist() == then

    del held
    assert next_address(recycler, 4 * 6 * 4) == first


def test_memory_in_a_cycle_comes_back_when_the_cycle_is_collected():
    recycler = Recycler()
    cycle = [recycler.empty((64,), np.uint8)]
    cycle.append(cycle)
    first = address(cycle[0])

    del cycle
    gc.collect()

    assert next_address(recycler, 64) == first


def test_arrays_outlive_the_recycler():
    recycler = Recycler()
    array = recycler.empty((64,), np.uint8)
    array[:] = 7

    del recycler
    gc.collect()

    assert (array == 7).all()


def test_threads_never_share_memory():
    recycler = Recycler()
    overwritten = []

    def take_and_drop(number):
        for turn in range(400):
            arrays = [recycler.empty((size,), np.uint8) for size in (32, 32, 48)]
            for array in arrays:
                array[:] = number
            time.sleep(0)
            overwritten.extend((number, turn) for array in arrays if (array != number).any())

    threads = [threading.Thread(target=take_and_drop, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert overwritten == []
