"""DALI's iterators that mix, over real pipelines: what they deliver is DALI's own, mixed."""

import gc
import inspect
import sys
from importlib import import_module

import numpy as np
import pytest
from support.requirements import require

import dali_mixup
from dali_mixup import Mixup, MixupLoader, OutputFormat
from dali_mixup.backends import reference

dali = require("nvidia.dali")
torch = require("torch", backend="dali")
plugin = require("nvidia.dali.plugin.pytorch", backend="dali")

fn, types = dali.fn, dali.types
FILL, DROP, PARTIAL = (
    getattr(plugin.LastBatchPolicy, name) for name in ("FILL", "DROP", "PARTIAL")
)
CLASSES = 14
SIZE = 16, 24


def make_mixup(**settings):
    return Mixup(**{"num_classes": CLASSES, "seed": 5, "mode": "elem", **settings})


@pytest.fixture
def photos(photo_folder):
    """Makes a pipeline over the first `count` photographs; photograph i has class id i."""
    paths = sorted(map(str, photo_folder.glob("*/*.jpg")))

    def make(count=5, outputs=lambda images, labels: (images, labels), *, shard=(0, 1), **options):
        options = {"batch_size": 2, "num_threads": 2, "device_id": None, "seed": 1, **options}

        @dali.pipeline_def(**options)
        def graph():
            encoded, labels = fn.readers.file(
                files=paths[:count],
                labels=list(range(count)),
                name="Reader",
                shard_id=shard[0],
                num_shards=shard[1],
            )
            images = fn.decoders.image(encoded, output_type=types.RGB)
            return outputs(fn.resize(images, size=SIZE), labels)

        return graph()

    return make


def delivered(iterator, epochs=1):
    """Copies of all that is handed out, epoch by epoch: [[[dict, ...], ...], ...]."""
    return [[copy_of(batch) for batch in iterator] for _ in range(epochs)]


def copy_of(batch):
    return [
        {key: value.clone() if torch.is_tensor(value) else value for key, value in part.items()}
        for part in batch
    ]


def sizes(epochs):
    return [[[len(part["label"]) for part in batch] for batch in epoch] for epoch in epochs]


def assert_same(left, right):
    """The same batches, bit by bit."""
    assert sizes(left) == sizes(right)
    for epoch, other_epoch in zip(left, right, strict=True):
        for step, (batch, other) in enumerate(zip(epoch, other_epoch, strict=True)):
            for part, other_part in zip(batch, other, strict=True):
                assert part.keys() == other_part.keys()
                for key in part:
                    assert part[key].dtype == other_part[key].dtype, key
                    assert torch.equal(part[key], other_part[key]), f"{key}, step {step}"


def assert_mixed(handed_out, given, mixup, *, epoch, step, stream=0):
    """A dict's "data" and "label" are the `given` ones, mixed by the plan of this position."""
    plan = mixup.plan(len(given["label"]), SIZE, epoch=epoch, step=step, stream=stream)
    images = reference.blend(given["data"].numpy(), plan, mixup.output, layout="HWC")
    soft = reference.soft_labels(given["label"].numpy(), plan, CLASSES, mixup.label_smoothing)
    where = f"epoch {epoch}, step {step}, stream {stream}"
    np.testing.assert_array_equal(handed_out["data"].numpy(), images, where, strict=True)
    np.testing.assert_array_equal(handed_out["label"].numpy(), soft, where, strict=True)


def assert_all_mixed(handed_out, given, mixup):
    """Every dict of every epoch is mixed by its own plan, and nothing is missing."""
    assert sizes(handed_out) == sizes(given)
    for epoch, (batches, plain_batches) in enumerate(zip(handed_out, given, strict=True)):
        for step, (batch, plain) in enumerate(zip(batches, plain_batches, strict=True)):
            for stream, (part, plain_part) in enumerate(zip(batch, plain, strict=True)):
                assert_mixed(part, plain_part, mixup, epoch=epoch, step=step, stream=stream)


def assert_unmixed(handed_out, given):
    np.testing.assert_array_equal(handed_out["data"].numpy(), given["data"].numpy(), strict=True)
    onehot = torch.nn.functional.one_hot(given["label"].flatten().long(), CLASSES)
    assert torch.equal(handed_out["label"], onehot.float())


# What is DALI's stays DALI's.


@pytest.mark.parametrize("policy", [FILL, DROP, PARTIAL])
def test_without_mixup_the_iterator_is_dalis(photos, policy):
    options = {"reader_name": "Reader", "last_batch_policy": policy, "auto_reset": True}
    theirs = plugin.DALIClassificationIterator(photos(), **options)

    ours = dali_mixup.MixupClassificationIterator(photos(), **options)
    ours.set_epoch(3)

    assert_same(delivered(ours, 2), delivered(theirs, 2))


def test_without_mixup_outputs_are_not_even_copied(photos):
    pipe = photos(outputs=lambda images, labels: (images, images, labels))
    iterator = dali_mixup.MixupGenericIterator(pipe, ["a", "b", "label"], reader_name="Reader")

    ((part,), *_) = iterator

    assert part["a"].data_ptr() == part["b"].data_ptr()


def test_dalis_arguments_keep_their_positions(photos):
    positional = -1, "Reader", True, None, False, False, PARTIAL, True
    theirs = plugin.DALIGenericIterator(photos(), ["data", "label"], *positional)
    ours = dali_mixup.MixupGenericIterator(
        photos(), ["data", "label"], *positional, mixup=make_mixup()
    )

    given, handed_out = delivered(theirs, 2), delivered(ours, 2)

    assert_all_mixed(handed_out, given, make_mixup())


def test_dalis_arguments_keep_their_positions_for_classification(photos):
    positional = -1, "Reader", True, None, False, False, PARTIAL, True
    theirs = plugin.DALIClassificationIterator(photos(), *positional)
    ours = dali_mixup.MixupClassificationIterator(photos(), *positional, mixup=make_mixup())

    given, handed_out = delivered(theirs, 2), delivered(ours, 2)

    assert_all_mixed(handed_out, given, make_mixup())


@pytest.mark.parametrize("kind", ["GenericIterator", "ClassificationIterator"])
def test_every_argument_has_dalis_own_name(photos, kind):
    parameters = inspect.signature(getattr(plugin, f"DALI{kind}").__init__).parameters
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    given = {"pipelines": photos(), **defaults, "reader_name": "Reader"}
    if "output_map" in parameters:
        given["output_map"] = ["data", "label"]

    iterator = getattr(dali_mixup, f"Mixup{kind}")(**given, mixup=make_mixup())

    assert set(given) | {"self"} == set(parameters)
    assert len(list(iterator)) == 3


def test_our_arguments_are_keyword_only(photos):
    positional = -1, "Reader", True, None, False, False, PARTIAL, True

    with pytest.raises(TypeError, match="positional arguments"):
        dali_mixup.MixupClassificationIterator(photos(), *positional, make_mixup())


def test_an_unknown_argument_is_refused(photos):
    with pytest.raises(TypeError, match="mixin"):
        dali_mixup.MixupClassificationIterator(photos(), mixin=make_mixup())


def test_size_length_and_batch_size_are_dalis(photos):
    options = {"reader_name": "Reader", "last_batch_policy": PARTIAL}
    theirs = plugin.DALIClassificationIterator(photos(), **options)
    ours = dali_mixup.MixupClassificationIterator(photos(), **options, mixup=make_mixup())

    assert [ours.size, len(ours), ours.batch_size] == [theirs.size, len(theirs), 2]
    assert isinstance(ours, plugin.DALIClassificationIterator)


def test_checkpoints_are_dalis(photos):
    pipe = photos(enable_checkpointing=True)
    iterator = dali_mixup.MixupClassificationIterator(
        pipe, reader_name="Reader", mixup=make_mixup()
    )
    next(iterator)

    (checkpoint,) = iterator.checkpoints()

    restored = photos(enable_checkpointing=True, checkpoint=checkpoint)
    rest = plugin.DALIClassificationIterator(restored, reader_name="Reader")
    assert next(rest)[0]["label"].flatten().tolist() == [2, 3]


# What is delivered, and how it is mixed.


@pytest.mark.parametrize("exec_dynamic", [True, False])
@pytest.mark.parametrize("policy", [FILL, DROP, PARTIAL])
@pytest.mark.parametrize("auto_reset", [True, False])
def test_what_dali_delivers_is_mixed_by_the_plan_of_its_place(
    photos, policy, auto_reset, exec_dynamic
):
    options = {"reader_name": "Reader", "last_batch_policy": policy, "auto_reset": auto_reset}
    theirs = plugin.DALIClassificationIterator(photos(exec_dynamic=exec_dynamic), **options)
    ours = dali_mixup.MixupClassificationIterator(
        photos(exec_dynamic=exec_dynamic), **options, mixup=make_mixup()
    )

    given, handed_out = delivered(theirs, 3), delivered(ours, 3)

    assert_all_mixed(handed_out, given, make_mixup())


@pytest.mark.parametrize("settings", [
    {"mode": "batch"},
    {"mode": "pair"},
    {"cutmix_alpha": 1.0, "label_smoothing": 0.1},
    {"output": OutputFormat("float32", "CHW", mean=[120, 110, 100], std=60.0)},
    {"output": OutputFormat("float16", channels_last=True)},
], ids=["batch", "pair", "cutmix", "normalised", "channels last"])  # fmt: skip
def test_every_kind_of_mixing_is_the_references(photos, settings):
    theirs = plugin.DALIClassificationIterator(photos(), reader_name="Reader")
    ours = dali_mixup.MixupClassificationIterator(
        photos(), reader_name="Reader", mixup=make_mixup(**settings)
    )

    given, handed_out = delivered(theirs), delivered(ours)

    assert_all_mixed(handed_out, given, make_mixup(**settings))


def test_a_partial_batch_mixes_only_what_is_delivered(photos):
    mixup = make_mixup(alpha=1.0, pairing="derangement")
    iterator = dali_mixup.MixupClassificationIterator(
        photos(8, batch_size=3),
        reader_name="Reader",
        last_batch_policy=PARTIAL,
        mixup=mixup,
        plan_key="plan",
    )

    *_, ((last),) = iterator

    assert last["data"].shape == (2, *SIZE, 3)
    assert last["plan"].partner.tolist() == [1, 0]
    assert set(last["label"].nonzero()[:, 1].tolist()) == {6, 7}


def test_a_full_last_batch_mixes_what_fills_it_up(photos):
    mixup = make_mixup(alpha=1.0, pairing="roll")
    iterator = dali_mixup.MixupClassificationIterator(
        photos(8, batch_size=3), reader_name="Reader", last_batch_policy=FILL, mixup=mixup
    )

    *_, ((last),) = iterator

    assert set(last["label"].nonzero()[:, 1].tolist()) == {6, 7, 0}


def test_a_shard_that_has_run_out_delivers_empty_batches(photos):
    options = {"reader_name": "Reader", "last_batch_policy": PARTIAL, "auto_reset": True}
    theirs = plugin.DALIClassificationIterator(photos(shard=(0, 2)), **options)
    ours = dali_mixup.MixupClassificationIterator(
        photos(shard=(0, 2)), **options, mixup=make_mixup()
    )

    given, handed_out = delivered(theirs, 3), delivered(ours, 3)

    assert sizes(given) == [[[2], [0]], [[2], [1]], [[2], [0]]]
    assert handed_out[0][1][0]["data"].shape == (0, *SIZE, 3)
    assert handed_out[0][1][0]["label"].shape == (0, CLASSES)
    assert_all_mixed(handed_out, given, make_mixup())


@pytest.mark.parametrize("policy", [FILL, DROP, PARTIAL])
def test_two_pipelines_of_uneven_shards_have_plans_of_their_own(photos, policy):
    options = {"reader_name": "Reader", "last_batch_policy": policy, "auto_reset": True}
    theirs = plugin.DALIClassificationIterator(
        [photos(shard=(0, 2)), photos(shard=(1, 2))], **options
    )
    ours = dali_mixup.MixupClassificationIterator(
        [photos(shard=(0, 2)), photos(shard=(1, 2))], **options, mixup=make_mixup()
    )

    given, handed_out = delivered(theirs, 4), delivered(ours, 4)

    assert_all_mixed(handed_out, given, make_mixup())


def test_the_plans_of_two_pipelines_differ(photos):
    iterator = dali_mixup.MixupClassificationIterator(
        [photos(shard=(0, 2)), photos(shard=(1, 2))],
        reader_name="Reader",
        mixup=make_mixup(),
        plan_key="plan",
    )

    first, second = next(iterator)

    assert not np.array_equal(first["plan"].lam, second["plan"].lam)


def test_a_size_instead_of_a_reader_trims_the_last_batch(photos):
    with pytest.warns(Warning, match="reader_name"):
        iterator = dali_mixup.MixupClassificationIterator(
            photos(), size=5, last_batch_policy=PARTIAL, mixup=make_mixup(), plan_key="plan"
        )

    *_, ((last),) = iterator

    assert len(last["plan"]) == len(last["data"]) == len(last["label"]) == 1


def test_a_pass_left_half_way_goes_on_where_dali_goes_on(photos):
    options = {"reader_name": "Reader", "auto_reset": True}
    theirs = plugin.DALIClassificationIterator(photos(8), **options)
    ours = dali_mixup.MixupClassificationIterator(photos(8), **options, mixup=make_mixup())

    given = [copy_of(next(theirs)), *delivered(theirs)[0]], *delivered(theirs)
    handed_out = [copy_of(next(ours)), *delivered(ours)[0]], *delivered(ours)

    assert sizes(given) == [[[2]] * 4, [[2]] * 4]
    assert_all_mixed(handed_out, given, make_mixup())


def test_an_epoch_ends_once_however_often_its_end_is_met(photos):
    theirs = plugin.DALIClassificationIterator(photos(4), reader_name="Reader")
    ours = dali_mixup.MixupClassificationIterator(
        photos(4), reader_name="Reader", mixup=make_mixup()
    )
    delivered(theirs)
    delivered(ours)

    at_the_end = [next(ours, "end"), next(ours, "end")]
    theirs.reset()
    ours.reset()

    assert at_the_end == ["end", "end"]
    assert_mixed(next(ours)[0], next(theirs)[0], make_mixup(), epoch=1, step=0)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("policy", [FILL, DROP, PARTIAL])
def test_an_epoch_ends_with_its_last_batch_for_who_counts_them(photos, policy, wrapped):
    options = {"reader_name": "Reader", "last_batch_policy": policy}
    theirs = plugin.DALIClassificationIterator(photos(), **options)
    if wrapped:
        ours = MixupLoader(plugin.DALIClassificationIterator(photos(), **options), make_mixup())
    else:
        ours = dali_mixup.MixupClassificationIterator(photos(), **options, mixup=make_mixup())

    def counted(iterator):
        batches = [copy_of(next(iterator)) for _ in range(len(iterator))]
        iterator.reset()
        return batches

    given, handed_out = ([counted(iterator) for _ in range(3)] for iterator in (theirs, ours))

    assert_all_mixed(handed_out, given, make_mixup())


def test_next_as_a_method_mixes_too(photos):
    theirs = plugin.DALIClassificationIterator(photos(), reader_name="Reader")
    ours = dali_mixup.MixupClassificationIterator(
        photos(), reader_name="Reader", mixup=make_mixup()
    )

    (handed_out,) = ours.next()

    assert_mixed(handed_out, next(theirs)[0], make_mixup(), epoch=0, step=0)


# Labels and other outputs.


def test_class_ids_in_a_column_become_rows(photos):
    theirs = plugin.DALIClassificationIterator(photos(), reader_name="Reader")
    ours = dali_mixup.MixupClassificationIterator(
        photos(), reader_name="Reader", mixup=make_mixup()
    )

    (given,), (handed_out,) = next(theirs), next(ours)

    assert given["label"].dtype == torch.int32
    assert given["label"].shape == (2, 1)
    assert handed_out["label"].dtype == torch.float32
    assert handed_out["label"].shape == (2, CLASSES)


def external_source(images, labels):
    """A pipeline that hands out these batches and then stops."""

    @dali.pipeline_def(batch_size=2, num_threads=2, device_id=None)
    def graph():
        source = list(zip(images, labels, strict=True))
        return tuple(fn.external_source(source=source, num_outputs=2, cycle="raise"))

    return graph()


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_an_external_source_is_mixed_whatever_integers_its_labels_are(dtype):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 2, *SIZE, 3), np.uint8)
    labels = rng.integers(0, CLASSES, (3, 2)).astype(dtype)
    iterator = dali_mixup.MixupGenericIterator(
        external_source(images, labels), ["data", "label"], auto_reset=True, mixup=make_mixup()
    )

    handed_out = delivered(iterator, 2)

    given = [[{"data": torch.from_numpy(x), "label": torch.from_numpy(y)}]
             for x, y in zip(images, labels, strict=True)]  # fmt: skip
    assert_all_mixed(handed_out, [given, given], make_mixup())


def test_a_label_outside_the_classes_is_named(photos):
    iterator = dali_mixup.MixupClassificationIterator(
        photos(), reader_name="Reader", mixup=make_mixup(num_classes=3)
    )
    next(iterator)

    with pytest.raises(ValueError, match=r"expected class ids in \[0, 3\), got 3 at row 1"):
        next(iterator)


def test_labels_made_dense_in_the_pipeline_are_mixed_as_rows(photos):
    def onehot(images, labels):
        return images, fn.one_hot(labels, num_classes=CLASSES)

    theirs = plugin.DALIClassificationIterator(photos(outputs=onehot), reader_name="Reader")
    ours = dali_mixup.MixupClassificationIterator(
        photos(outputs=onehot), reader_name="Reader", mixup=make_mixup()
    )

    given, handed_out = delivered(theirs), delivered(ours)

    assert given[0][0][0]["label"].shape == (2, CLASSES)
    assert_all_mixed(handed_out, given, make_mixup())


def two_views(images, labels):
    return images, fn.flip(images), labels


def test_two_views_share_one_plan(photos):
    names = ["first", "second", "label"]
    theirs = plugin.DALIGenericIterator(photos(outputs=two_views), names, reader_name="Reader")
    ours = dali_mixup.MixupGenericIterator(
        photos(outputs=two_views),
        names,
        reader_name="Reader",
        mixup=make_mixup(),
        data_key=["first", "second"],
    )

    (given,), (handed_out,) = next(theirs), next(ours)

    plan = make_mixup().plan(2, SIZE)
    by_hand = [reference.blend(given[key].numpy(), plan, layout="HWC") for key in names[:2]]
    np.testing.assert_array_equal(handed_out["first"].numpy(), by_hand[0], strict=True)
    np.testing.assert_array_equal(handed_out["second"].numpy(), by_hand[1], strict=True)


def test_other_outputs_are_handed_out_as_dali_has_them(photos):
    names = ["data", "other", "label"]
    theirs = plugin.DALIGenericIterator(photos(outputs=two_views), names, reader_name="Reader")
    ours = dali_mixup.MixupGenericIterator(
        photos(outputs=two_views),
        names,
        reader_name="Reader",
        mixup=make_mixup(),
        data_key="data",
    )

    (given,), (handed_out,) = next(theirs), next(ours)

    assert torch.equal(handed_out["other"], given["other"])
    assert_mixed(handed_out, given, make_mixup(), epoch=0, step=0)


@pytest.mark.parametrize("enabled", [True, False])
def test_outputs_that_share_memory_stay_as_dali_made_them(photos, enabled):
    def twice(images, labels):
        return images, images, labels

    names, mixup = ["data", "same", "label"], make_mixup(alpha=1.0)
    theirs = plugin.DALIGenericIterator(photos(outputs=twice), names, reader_name="Reader")
    ours = dali_mixup.MixupGenericIterator(
        photos(outputs=twice), names, reader_name="Reader", mixup=mixup, data_key="data"
    )
    mixup.enabled = enabled

    (given,), (handed_out,) = next(theirs), next(ours)

    assert given["data"].data_ptr() == given["same"].data_ptr()
    assert torch.equal(handed_out["same"], given["same"])
    assert handed_out["data"].data_ptr() != handed_out["same"].data_ptr()
    assert torch.equal(handed_out["data"], given["data"]) is not enabled


def test_pipelines_may_deliver_images_of_another_size_from_batch_to_batch():
    images = [np.full((2, side, 16, 3), side, np.uint8) for side in (8, 12)]
    labels = np.zeros((2, 2), np.int64)
    iterator = dali_mixup.MixupGenericIterator(
        external_source(images, labels), ["data", "label"], mixup=make_mixup(cutmix_alpha=1.0)
    )

    shapes = [tuple(part["data"].shape) for (part,) in iterator]

    assert shapes == [(2, 8, 16, 3), (2, 12, 16, 3)]


# Memory.


@pytest.mark.parametrize("exec_dynamic", [True, False])
@pytest.mark.parametrize("held", [
    lambda images: images,
    lambda images: images[0],
    lambda images: images.view(-1)[5:],
    lambda images: torch.from_numpy(images.numpy()[1]),
], ids=["the tensor", "an image", "a view of a view", "through numpy"])  # fmt: skip
def test_a_kept_batch_is_never_overwritten(photos, held, exec_dynamic):
    iterator = dali_mixup.MixupClassificationIterator(
        photos(14, exec_dynamic=exec_dynamic),
        reader_name="Reader",
        auto_reset=True,
        mixup=make_mixup(),
    )
    kept, copies = [], []

    for _ in range(2):
        for (part,) in iterator:
            kept.append((held(part["data"]), part["label"][1]))
            copies.append(tuple(tensor.clone() for tensor in kept[-1]))
            del part
    gc.collect()

    assert len(kept) == 14
    for step, ((image, label), then) in enumerate(zip(kept, copies, strict=True)):
        assert torch.equal(image, then[0]), step
        assert torch.equal(label, then[1]), step


def test_a_batch_outlives_its_iterator(photos):
    iterator = dali_mixup.MixupClassificationIterator(
        photos(), reader_name="Reader", mixup=make_mixup(), plan_key="plan"
    )
    (part,) = next(iterator)
    then = copy_of([part])[0]

    del iterator
    gc.collect()

    assert torch.equal(part["data"], then["data"])
    assert torch.equal(part["label"], then["label"])


# When a setting takes effect.


def test_mixup_turned_off_before_the_first_batch_leaves_it_unmixed(photos):
    theirs = plugin.DALIClassificationIterator(photos(), reader_name="Reader")
    mixup = make_mixup()
    ours = dali_mixup.MixupClassificationIterator(photos(), reader_name="Reader", mixup=mixup)

    mixup.enabled = False

    assert_unmixed(next(ours)[0], next(theirs)[0])


def test_mixup_can_be_turned_off_and_on_from_batch_to_batch(photos):
    options = {"reader_name": "Reader"}
    theirs = plugin.DALIClassificationIterator(photos(14, prefetch_queue_depth=3), **options)
    mixup = make_mixup()
    ours = dali_mixup.MixupClassificationIterator(
        photos(14, prefetch_queue_depth=3), **options, mixup=mixup
    )
    next(theirs)
    next(ours)

    mixup.enabled = False
    off = next(ours)[0]
    mixup.enabled = True
    on = next(ours)[0]

    assert_unmixed(off, next(theirs)[0])
    assert_mixed(on, next(theirs)[0], make_mixup(), epoch=0, step=2)


@pytest.mark.parametrize("handed_out_before", [0, 2])
def test_setting_the_epoch_holds_from_the_very_next_batch(photos, handed_out_before):
    theirs = plugin.DALIClassificationIterator(photos(14), reader_name="Reader")
    ours = dali_mixup.MixupClassificationIterator(
        photos(14), reader_name="Reader", mixup=make_mixup()
    )
    for _ in range(handed_out_before):
        next(theirs)
        next(ours)

    ours.set_epoch(9)

    assert_mixed(next(ours)[0], next(theirs)[0], make_mixup(), epoch=9, step=0)
    assert_mixed(next(ours)[0], next(theirs)[0], make_mixup(), epoch=9, step=1)


def test_after_the_last_mixed_epoch_batches_are_unmixed(photos):
    options = {"reader_name": "Reader", "auto_reset": True}
    theirs = plugin.DALIClassificationIterator(photos(4), **options)
    ours = dali_mixup.MixupClassificationIterator(
        photos(4), **options, mixup=make_mixup(), off_after_epoch=1
    )

    given, handed_out = delivered(theirs, 2), delivered(ours, 2)

    assert_all_mixed(handed_out[:1], given[:1], make_mixup())
    for batch, plain in zip(handed_out[1], given[1], strict=True):
        assert_unmixed(batch[0], plain[0])


def test_the_plan_that_is_handed_out_is_the_one_of_its_place(photos):
    iterator = dali_mixup.MixupClassificationIterator(
        photos(), reader_name="Reader", mixup=make_mixup(), plan_key="plan"
    )
    iterator.set_epoch(2)
    next(iterator)

    (part,) = next(iterator)

    plan = make_mixup().plan(2, SIZE, epoch=2, step=1)
    assert part["plan"].partner.tolist() == plan.partner.tolist()
    assert part["plan"].lam.tolist() == plan.lam.tolist()


# As base classes.


def test_a_subclass_gets_mixed_batches_from_its_base(photos):
    class Doubled(dali_mixup.MixupClassificationIterator):
        def __next__(self):
            (part,) = super().__next__()
            return part["data"], part["label"], "mine"

    theirs = plugin.DALIClassificationIterator(photos(), reader_name="Reader")
    ours = Doubled(photos(), reader_name="Reader", mixup=make_mixup())

    images, labels, mine = next(ours)

    assert mine == "mine"
    given = next(theirs)[0]
    assert_mixed({"data": images, "label": labels}, given, make_mixup(), epoch=0, step=0)


def test_a_subclass_may_set_its_attributes_first(photos):
    class Counting(dali_mixup.MixupGenericIterator):
        def __init__(self, pipelines, **options):
            self.handed_out = 0
            self.output_map = "set by DALI later"
            super().__init__(pipelines, ["data", "label"], **options)
            self.at_first = self.handed_out

        def __next__(self):
            self.handed_out += 1
            return super().__next__()

    ours = Counting(photos(), reader_name="Reader", mixup=make_mixup())
    theirs = plugin.DALIClassificationIterator(photos(), reader_name="Reader")

    given, handed_out = delivered(theirs), delivered(ours)

    assert ours.at_first == 0
    assert ours.handed_out == 4  # three batches and the end
    assert_all_mixed(handed_out, given, make_mixup())


def test_a_chain_of_subclasses_mixes_once(photos):
    class First(dali_mixup.MixupClassificationIterator):
        def __next__(self):
            return [{**part, "first": 1} for part in super().__next__()]

    class Second(First):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.second = True

    class Third(Second):
        def __next__(self):
            return [{**part, "third": 3} for part in super().__next__()]

    theirs = plugin.DALIClassificationIterator(photos(), reader_name="Reader")
    ours = Third(photos(), reader_name="Reader", mixup=make_mixup())

    (handed_out,) = next(ours)

    assert [handed_out["first"], handed_out["third"], ours.second] == [1, 3, True]
    assert_mixed(handed_out, next(theirs)[0], make_mixup(), epoch=0, step=0)


# The wrapper around DALI's own.


def test_the_wrapper_hands_out_what_the_iterator_does(photos):
    options = {"reader_name": "Reader", "last_batch_policy": PARTIAL, "auto_reset": True}
    theirs = plugin.DALIClassificationIterator(photos(), **options)
    wrapped = MixupLoader(plugin.DALIClassificationIterator(photos(), **options), make_mixup())

    given, handed_out = delivered(theirs, 2), delivered(wrapped, 2)

    assert_all_mixed(handed_out, given, make_mixup())


def test_the_wrapper_takes_the_outputs_in_the_order_of_the_map(photos):
    names = ["data", "other", "label"]
    theirs = plugin.DALIGenericIterator(photos(outputs=two_views), names, reader_name="Reader")
    inner = plugin.DALIGenericIterator(photos(outputs=two_views), names, reader_name="Reader")

    (handed_out,) = next(MixupLoader(inner, make_mixup(), data_key="data"))

    given = next(theirs)[0]
    assert_mixed(handed_out, given, make_mixup(), epoch=0, step=0)
    assert torch.equal(handed_out["other"], given["other"])


# What is refused.


@pytest.mark.parametrize("setting", [{"plan_key": "plan"}, {"off_after_epoch": 0}])
def test_settings_of_mixing_without_a_mixup_are_refused(photos, setting):
    with pytest.raises(TypeError, match="expected a mixup beside them, got mixup=None"):
        dali_mixup.MixupClassificationIterator(photos(), reader_name="Reader", **setting)


@pytest.mark.parametrize("mixup", [Mixup, 0.2, "mixup"])
def test_the_mixup_has_to_be_one(photos, mixup):
    with pytest.raises(TypeError, match="mixup: expected a Mixup, got "):
        dali_mixup.MixupClassificationIterator(photos(), reader_name="Reader", mixup=mixup)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"data_key": "x"}, r"expected names among \['data', 'label'\], got 'x'"),
        ({"data_key": ["data", "x"]}, r"expected names among \['data', 'label'\], got 'x'"),
        ({"label_key": "y"}, r"expected names among \['data', 'label'\], got 'y'"),
        ({"data_key": "data", "label_key": "data"}, "expected different outputs, got 'data' twice"),
        ({"plan_key": "data"}, "plan_key: expected a new name, got the output 'data'"),
    ],
)
def test_keys_that_are_no_outputs_are_refused_at_once(photos, keys, message):
    with pytest.raises(ValueError, match=message):
        dali_mixup.MixupClassificationIterator(
            photos(), reader_name="Reader", mixup=make_mixup(), **keys
        )


def test_a_single_output_holds_images_that_are_mixed_alone(photos):
    pipes = [photos(outputs=lambda images, labels: images) for _ in range(2)]
    theirs = plugin.DALIGenericIterator(pipes[0], ["data"], reader_name="Reader")
    ours = dali_mixup.MixupGenericIterator(
        pipes[1], ["data"], reader_name="Reader", mixup=make_mixup(), plan_key="plan"
    )

    (given,), (handed_out,) = next(theirs), next(ours)

    want = reference.blend(given["data"].numpy(), handed_out["plan"], layout="HWC")
    assert handed_out["data"].numpy().tobytes() == want.tobytes()
    assert set(handed_out) == {"data", "plan"}


def test_several_views_have_to_be_named(photos):
    loader = dali_mixup.MixupGenericIterator(
        photos(outputs=two_views),
        ["data", "other", "label"],
        reader_name="Reader",
        mixup=make_mixup(),
    )

    with pytest.raises(ValueError, match=r"data_key: .*\['data', 'other'\] could be images"):
        next(loader)


def test_labels_without_a_usual_name_have_to_be_named_at_once(photos):
    def with_index(images, labels):
        return images, labels, labels

    with pytest.raises(ValueError, match=r"label_key: expected .*\['data', 'make', 'colour'\]"):
        dali_mixup.MixupGenericIterator(
            photos(outputs=with_index),
            ["data", "make", "colour"],
            reader_name="Reader",
            mixup=make_mixup(),
        )


def test_the_only_output_with_a_usual_name_holds_the_labels(photos):
    def with_index(images, labels):
        return images, labels, labels

    names = ["image", "label", "index"]
    theirs = plugin.DALIGenericIterator(photos(outputs=with_index), names, reader_name="Reader")
    ours = dali_mixup.MixupGenericIterator(
        photos(outputs=with_index), names, reader_name="Reader", mixup=make_mixup()
    )

    (given,), (handed_out,) = next(theirs), next(ours)

    assert handed_out["label"].shape == (len(given["label"]), CLASSES)
    assert torch.equal(handed_out["index"], given["index"])


def test_targets_beside_the_labels_leave_the_ids_as_they_are(photos):
    theirs = plugin.DALIClassificationIterator(photos(), reader_name="Reader")
    ours = dali_mixup.MixupClassificationIterator(
        photos(), reader_name="Reader", mixup=make_mixup(), target_key="target"
    )

    (given,), (handed_out,) = next(theirs), next(ours)

    assert torch.equal(handed_out["label"], given["label"])
    assert handed_out["target"].shape == (len(given["label"]), CLASSES)
    assert_mixed(
        {"data": handed_out["data"], "label": handed_out["target"]},
        given,
        make_mixup(),
        epoch=0,
        step=0,
    )


def test_images_of_unequal_sizes_are_refused(photo_folder):
    @dali.pipeline_def(batch_size=2, num_threads=2, device_id=None)
    def ragged():
        encoded, labels = fn.readers.file(file_root=str(photo_folder), name="Reader")
        images = fn.decoders.image(encoded, output_type=types.RGB)
        return fn.resize(images, resize_y=fn.random.uniform(range=(20, 40))), labels

    with pytest.raises(RuntimeError, match="must have uniform shape"):
        list(
            dali_mixup.MixupClassificationIterator(
                ragged(), reader_name="Reader", mixup=make_mixup()
            )
        )


@pytest.mark.parametrize("missing", ["nvidia.dali", "nvidia.dali.plugin.pytorch", "torch"])
def test_what_is_missing_is_named_with_what_to_install(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    for name in ("dali_mixup.loaders.dali", "nvidia.dali.plugin.pytorch"):
        if name != missing:
            monkeypatch.delitem(sys.modules, name, raising=False)

    with pytest.raises(ModuleNotFoundError, match="needs NVIDIA DALI and torch") as raised:
        import_module("dali_mixup.loaders.dali")

    assert f"{missing!r} is missing: pip install 'dali-mixup[cuda12]'" in str(raised.value)
    assert raised.value.name == missing
