"""What a loader hands out beside images and one label: masks, several heads, changing settings."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dali_mixup import Mixup, MixupLoader, OutputFormat

CUT = {"alpha": 0, "cutmix_alpha": 1.0, "mode": "elem"}


def dicts(count=3, size=6):
    """Images that carry their own places, masks of the same numbers, and labels of two heads."""
    sample, y, x = np.indices((size, 8, 10))
    places = (sample * 8 + y) * 10 + x
    images = np.repeat(places[..., None], 3, 3).astype(np.float32)
    return [
        {
            "image": images + step,
            "mask": (places + step).astype(np.int64),
            "make": np.arange(size),
            "color": np.arange(size) % 3,
        }
        for step in range(count)
    ]


def places_of(images):
    return images[..., 0].astype(np.int64)


@pytest.mark.parametrize("form", ["BHW", "B1HW", "BHW1"])
def test_masks_are_cut_where_their_images_are(form):
    axis = {"BHW": (), "B1HW": (1,), "BHW1": (3,)}[form]
    batches = [{**b, "mask": np.expand_dims(b["mask"], axis)} for b in dicts()]
    loader = MixupLoader(
        batches, Mixup(num_classes=6, **CUT), data_key="image", label_key="make", mask_key="mask"
    )

    for batch, given in zip(loader, batches, strict=True):
        assert batch["mask"].shape == given["mask"].shape
        np.testing.assert_array_equal(batch["mask"].squeeze(axis or ()), places_of(batch["image"]))
        assert (batch["image"] != given["image"]).any()


def test_masks_of_a_second_pipeline_are_cut_by_its_plan():
    [parts] = [[dicts(1)[0], dicts(1)[0]]]
    keys = {"data_key": "image", "label_key": "make", "mask_key": "mask"}

    [batch] = MixupLoader([parts], Mixup(num_classes=6, **CUT), **keys)

    for part in batch:
        np.testing.assert_array_equal(part["mask"], places_of(part["image"]))
    assert (batch[0]["mask"] != batch[1]["mask"]).any()


@pytest.mark.parametrize("form", [dict, tuple])
def test_masks_that_are_not_named_are_not_left_as_they_are(form):
    parts = [("image", b["image"]) for b in dicts(1)] + [("label", np.arange(6))]
    parts += [("mask", dicts(1)[0]["mask"])]
    batch = dict(parts) if form is dict else tuple(part for _, part in parts)

    with pytest.raises(ValueError, match=r"could be images or masks; .* and masks as mask_key"):
        next(iter(MixupLoader([batch], Mixup(num_classes=6, **CUT))))


def test_labels_may_come_first():
    batches = [{"label": b["make"], "image": b["image"], "mask": b["mask"]} for b in dicts()]

    for batch in MixupLoader(batches, Mixup(num_classes=6, **CUT), mask_key="mask"):
        assert batch["label"].shape == (6, 6)
        np.testing.assert_array_equal(batch["mask"], places_of(batch["image"]))


def test_several_masks_share_the_plan():
    batches = [{**b, "edges": b["mask"].astype(np.uint8)} for b in dicts()]
    keys = {"data_key": "image", "label_key": "make", "mask_key": ("mask", "edges")}

    for batch in MixupLoader(batches, Mixup(num_classes=6, **CUT), **keys):
        np.testing.assert_array_equal(batch["edges"], batch["mask"].astype(np.uint8))


@pytest.mark.parametrize("names", [("image", "mask"), ("image", "mask", "label")])
def test_images_are_found_beside_masks(names):
    batches = [
        {name: {**batch, "label": batch["make"]}[name] for name in names} for batch in dicts()
    ]

    for batch in MixupLoader(batches, Mixup(num_classes=6, **CUT), mask_key="mask"):
        np.testing.assert_array_equal(batch["mask"], places_of(batch["image"]))
        assert "label" not in batch or batch["label"].shape == (6, 6)


def test_labels_beside_masks_are_not_guessed():
    batches = [{name: batch[name] for name in ("image", "mask", "make")} for batch in dicts()]
    loader = MixupLoader(batches, Mixup(num_classes=None, **CUT), mask_key="mask")

    with pytest.raises(ValueError, match="label_key: expected the name of the labels among"):
        next(iter(loader))


@pytest.mark.parametrize("order", [("image", "make", "mask"), ("image", "mask", "make")])
def test_masks_are_items_of_tuples(order):
    mask, label = order.index("mask"), order.index("make")
    batches = [tuple(batch[name] for name in order) for batch in dicts()]

    for batch in MixupLoader(batches, Mixup(num_classes=6, **CUT), mask_key=mask):
        np.testing.assert_array_equal(batch[mask], places_of(batch[0]))
        assert batch[label].shape == (6, 6)


def test_a_pair_of_images_and_masks_has_no_labels():
    batches = [(batch["image"], batch["mask"]) for batch in dicts()]

    for images, masks in MixupLoader(batches, Mixup(num_classes=None, **CUT), mask_key=1):
        np.testing.assert_array_equal(masks, places_of(images))


def test_masks_stay_as_they_are_in_validation():
    [batch, *_] = MixupLoader(
        dicts(), Mixup(num_classes=6, **CUT).for_validation(), label_key="make", mask_key="mask",
        data_key="image",
    )  # fmt: skip

    np.testing.assert_array_equal(batch["mask"], dicts()[0]["mask"])


def test_weights_beside_masks_are_refused_at_once():
    with pytest.raises(ValueError, match=r"alpha=0 beside mask_key=\('mask',\), got alpha=0.2"):
        MixupLoader(dicts(), Mixup(num_classes=6, cutmix_alpha=1.0), mask_key="mask")


def test_masks_of_another_size_are_refused():
    batches = [{**batch, "mask": batch["mask"][:, :4]} for batch in dicts()]
    loader = MixupLoader(
        batches, Mixup(num_classes=6, **CUT), data_key="image", label_key="make", mask_key="mask"
    )

    with pytest.raises(ValueError, match=r"mask_key: .* got \(8, 10\) for 'image' and \(4, 10\)"):
        next(iter(loader))


# ---- several heads ------------------------------------------------------------------------------


@pytest.mark.parametrize("label_key", [None, ("make", "color"), ("color", "make")])
def test_each_head_is_mixed_by_the_plan_of_the_batch(label_key):
    mixup = Mixup(num_classes={"make": 6, "color": 3}, mode="elem")
    loader = MixupLoader(dicts(), mixup, data_key="image", label_key=label_key, plan_key="plan")

    for batch, given in zip(loader, dicts(), strict=True):
        for head, count in mixup.num_classes.items():
            _, want = Mixup(num_classes=count)(given["image"], given[head], plan=batch["plan"])
            np.testing.assert_array_equal(batch[head], want, strict=True)


def test_a_single_head_may_have_a_name():
    batches = [{"image": b["image"], "make": b["make"]} for b in dicts()]

    for batch in MixupLoader(batches, Mixup(num_classes={"make": 6})):
        assert batch["make"].shape == (6, 6)


def test_targets_of_heads_are_added_as_a_dict():
    mixup = Mixup(num_classes={"make": 6, "color": 3})
    [batch, *_] = MixupLoader(dicts(), mixup, data_key="image", target_key="target")

    assert {head: rows.shape for head, rows in batch["target"].items()} == {
        "make": (6, 6), "color": (6, 3),
    }  # fmt: skip
    np.testing.assert_array_equal(batch["make"], np.arange(6))


@pytest.mark.parametrize("form", [dict, tuple])
def test_the_labels_of_all_heads_may_be_one_output(form):
    heads = {"make": 6, "color": 3}
    batches = [
        (b["image"], {h: b[h] for h in heads} if form is dict else tuple(b[h] for h in heads))
        for b in dicts()
    ]

    for _, targets in MixupLoader(batches, Mixup(num_classes=heads)):
        parts = targets.values() if form is dict else targets
        assert [part.shape for part in parts] == [(6, 6), (6, 3)]


@pytest.mark.parametrize(
    ("num_classes", "label_key"), [(6, ("make", "color")), ({"make": 6}, ("make", "color"))]
)
def test_heads_without_a_number_of_classes_are_refused_at_once(num_classes, label_key):
    with pytest.raises(ValueError, match=r"expected a dict with the keys \('make', 'color'\)"):
        MixupLoader(dicts(), Mixup(num_classes=num_classes), label_key=label_key)


def test_a_head_that_is_no_output_is_named():
    loader = MixupLoader(dicts(), Mixup(num_classes={"make": 6, "colour": 3}), data_key="image")

    with pytest.raises(ValueError, match=r"names of its heads, got \[.*\] without 'colour'"):
        next(iter(loader))


def test_heads_of_other_names_than_a_tuple_has_are_refused():
    batches = [(b["image"], b["make"], b["color"]) for b in dicts()]
    by_index = {"1": 6, "2": 3}

    [batch, *_] = MixupLoader(batches, Mixup(num_classes=by_index))
    assert [part.shape for part in batch[1:]] == [(6, 6), (6, 3)]
    with pytest.raises(TypeError, match="num_classes has the names of its outputs"):
        next(iter(MixupLoader(batches, Mixup(num_classes={"make": 6, "color": 3}))))


def test_a_head_with_too_many_classes_is_warned_of():
    batches = dicts(40)
    loader = MixupLoader(batches, Mixup(num_classes={"make": 6, "color": 900}), data_key="image")

    with pytest.warns(UserWarning, match="num_classes=900, .* expected num_classes=3"):
        list(loader)


# ---- settings that change -----------------------------------------------------------------------


def pairs(count=4):
    return [(batch["image"], batch["make"]) for batch in dicts(count)]


def mixed_by(mixup, epoch, step):
    images, labels = pairs()[step]
    return mixup(images, labels, plan=mixup.plan(6, (8, 10), epoch=epoch, step=step))


def test_settings_that_are_assigned_hold_from_the_next_batch_on():
    first = Mixup(num_classes=6, alpha=0.2, seed=5)
    loader = MixupLoader(pairs(), first)
    batches = iter(loader)
    next(batches)

    loader.mixup = replace(loader.mixup, alpha=4.0, label_smoothing=0.1)

    for step in (1, 2, 3):
        images, targets = next(batches)
        want_images, want = mixed_by(loader.mixup, 0, step)
        np.testing.assert_array_equal(images, want_images)
        np.testing.assert_array_equal(targets, want)
    assert not np.array_equal(want_images, mixed_by(first, 0, 3)[0])


def test_a_resumed_run_goes_on_with_the_settings_that_were_changed():
    def new_loader():
        return MixupLoader(pairs(), Mixup(num_classes=6, alpha=0.1, output=OutputFormat("float16")))

    loader = new_loader()
    list(loader)
    loader.mixup = replace(
        loader.mixup, alpha=0.8, output=OutputFormat("float32", mean=(1.0, 2.0, 3.0), std=100.0)
    )
    state = loader.state_dict()
    want = list(loader)

    resumed = new_loader()
    resumed.load_state_dict(state)

    assert resumed.mixup == loader.mixup
    for (images, targets), (want_images, want_targets) in zip(resumed, want, strict=True):
        np.testing.assert_array_equal(images, want_images, strict=True)
        np.testing.assert_array_equal(targets, want_targets, strict=True)
    assert resumed.state_dict() == loader.state_dict()


def test_a_resumed_run_stays_turned_off():
    loader = MixupLoader(pairs(), Mixup(num_classes=6, alpha=0.1))
    loader.mixup = replace(loader.mixup, alpha=0.8)
    state = loader.state_dict()
    resumed = MixupLoader(pairs(), Mixup(num_classes=6, alpha=0.1))
    resumed.mixup.enabled = False

    resumed.load_state_dict(state)

    assert (resumed.mixup.alpha, resumed.mixup.enabled) == (0.8, False)


def test_a_state_without_changes_undoes_those_of_the_loader():
    loader = MixupLoader(pairs(), Mixup(num_classes=6, alpha=0.1))
    state = loader.state_dict()
    loader.mixup = replace(loader.mixup, alpha=0.8)

    loader.load_state_dict(state)

    assert loader.mixup.alpha == 0.1


def test_other_settings_at_the_start_are_refused_as_before():
    loader = MixupLoader(pairs(), Mixup(num_classes=6, alpha=0.1))
    loader.mixup = replace(loader.mixup, alpha=0.8)
    other = MixupLoader(pairs(), Mixup(num_classes=6, alpha=0.8))

    with pytest.raises(ValueError, match=r"alpha: expected 0.1 as saved, got 0.8"):
        other.load_state_dict(loader.state_dict())

    other.load_state_dict(loader.state_dict(), strict=False)
    assert other.mixup.alpha == 0.8


def test_a_loader_that_is_made_anew_goes_on_where_the_changed_one_stood():
    loader = MixupLoader(pairs(), Mixup(num_classes=6))
    list(loader)
    loader.mixup = replace(loader.mixup, alpha=0.8)
    list(loader)

    again = MixupLoader(pairs(), loader.mixup)

    assert (again.mixer.epoch, again.mixer.step) == (2, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": 0, "cutmix_alpha": 1.0},
        {"fold": False},
        {"num_classes": None},
        {"num_classes": {"b": 6, "a": 6}},
        {"output": None},
    ],
)
def test_every_change_is_in_the_state(change):
    settings = {"num_classes": {"a": 6, "b": 6}, "fold": True, "output": OutputFormat("float16")}
    loader = MixupLoader(pairs(), Mixup(**settings))
    loader.mixup = replace(loader.mixup, **change)
    resumed = MixupLoader(pairs(), Mixup(**settings))

    resumed.load_state_dict(json.loads(json.dumps(loader.state_dict(), sort_keys=True)))

    assert resumed.mixup == loader.mixup
    assert str(resumed.mixup.num_classes) == str(loader.mixup.num_classes)


def test_a_new_loader_over_assigned_settings_goes_on():
    loader = MixupLoader(pairs(), Mixup(num_classes=6))
    list(loader)
    loader.mixup = replace(loader.mixup, alpha=0.8)

    assert MixupLoader(pairs(), loader.mixup).mixer.epoch == 1


@pytest.mark.parametrize("mixup", [None, 0.2, "mixup"])
def test_what_is_no_mixup_is_not_assigned(mixup):
    loader = MixupLoader(pairs(), Mixup(num_classes=6))

    with pytest.raises(TypeError, match="mixup: expected a Mixup, got"):
        loader.mixup = mixup


def test_weights_are_not_assigned_beside_masks():
    loader = MixupLoader(dicts(), Mixup(num_classes=6, **CUT), mask_key="mask")

    with pytest.raises(ValueError, match="alpha=0 beside mask_key"):
        loader.mixup = replace(loader.mixup, alpha=0.2)

    assert loader.mixup.alpha == 0


@pytest.mark.parametrize("changed", [["alpha"], {"beta": 1}])
def test_changes_that_are_none_of_settings_are_refused(changed):
    loader = MixupLoader(pairs(), Mixup(num_classes=6))
    state = loader.state_dict() | {"changed": changed}

    with pytest.raises(TypeError, match=r"state\['changed'\]: expected a dict of settings"):
        loader.load_state_dict(state)


# ---- two views ----------------------------------------------------------------------------------


def two_views(side):
    return [{**batch, "local": batch["image"][:, :side, :side]} for batch in dicts()]


def test_views_of_different_sizes_share_the_weights():
    mixup = Mixup(num_classes=6, mode="elem", seed=1)
    keys = {"data_key": ("image", "local"), "label_key": "make"}

    for batch in MixupLoader(two_views(5), mixup, **keys):
        np.testing.assert_array_equal(batch["local"], batch["image"][:, :5, :5])


def test_a_box_for_views_of_different_sizes_is_refused():
    mixup = Mixup(num_classes=6, **CUT)
    loader = MixupLoader(two_views(5), mixup, data_key=("image", "local"), label_key="make")

    with pytest.raises(
        ValueError, match=r"images of one size for CutMix, got \(8, 10\) for 'image'"
    ):
        next(iter(loader))


def test_the_second_item_is_the_label_also_where_the_images_come_last():
    batch = (np.arange(6), np.arange(6)[::-1], dicts(1)[0]["image"])

    [mixed] = MixupLoader([batch], Mixup(num_classes=6), data_key=2)

    assert mixed[0].tolist() == list(range(6))
    assert mixed[1].shape == (6, 6)


def test_images_without_channels_are_found_among_others():
    batch = {"image": dicts(1)[0]["image"][..., 0], "label": np.arange(6), "id": np.arange(6)}

    [mixed] = MixupLoader([batch], Mixup(num_classes=6, layout="HW"))

    assert mixed["image"].shape == (6, 8, 10)
    assert mixed["label"].shape == (6, 6)
