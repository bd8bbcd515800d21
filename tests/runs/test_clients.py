"""Programs as users write them: their models receive images and targets that belong together.

Each module of `runs.clients` is one program. It is given data whose pixels say which samples are
mixed and by how much, and a model that keeps what it is trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest
from support.processes import torchrun
from support.requirements import require

torch = require("torch", backend="dali")
require("nvidia.dali")
require("PIL.Image", backend="dali")
import_module("dali_mixup.cli.peers")  # torchvision then loads beside a CPU build of torch

from nvidia.dali.plugin.pytorch.experimental import proxy  # noqa: E402
from support.pictures import (  # noqa: E402
    SAMPLES,
    Witness,
    by_epoch,
    dataset,
    lams_of,
    weights_in,
    write_pictures,
)

from dali_mixup import Mixup, MixupLoader  # noqa: E402

RANK = Path(__file__).parents[1] / "support" / "client_rank.py"
EPOCHS = 3

# What Lightning itself warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning")


class Received(NamedTuple):
    """The images of one rank, and the rows of soft labels."""

    images: list[torch.Tensor]
    targets: list[torch.Tensor]


Run = Callable[[Path, Path], list[Received]]


def over_folder(client: str, *, needs: tuple[str, ...] = (), **options) -> Run:
    """The client reads the folder of pictures."""

    def run(folder, out):
        require_all(needs)
        model = Witness()
        import_module(f"runs.clients.{client}").train(folder, model, model.criterion, **options)
        return [Received(model.images, model.targets)]

    return run


def over_dataset(client: str, *, smoothing: float = 0.0, **options) -> Run:
    """The client is handed a torch Dataset; its targets are smoothed by `smoothing`."""
    run_client = over_folder(client, **options)

    def run(folder, out):
        ((images, targets),) = run_client(dataset(), out)
        return [
            Received(images, [(rows - smoothing / SAMPLES) / (1 - smoothing) for rows in targets])
        ]

    return run


def on_two_ranks(
    client: str, *arguments: object, needs: tuple[str, ...], reads_folder: bool = False
) -> Run:
    """The client is started by torchrun."""

    def run(folder, out):
        require_all(needs)
        torchrun(2, RANK, client, folder if reads_folder else "", out, *arguments)
        return [Received(*torch.load(out / f"{rank}.pt")) for rank in range(2)]

    return run


def require_all(modules: tuple[str, ...]) -> None:
    for module in modules:
        require(module, backend="dali")


LIGHTNING, ACCELERATE = ("lightning",), ("accelerate", "torchdata")
CLIENTS = {
    "generic_iterator_subclass": over_folder("generic_iterator_subclass"),
    "dali_wrapper": over_folder("dali_wrapper"),
    "one_hot_pipeline": over_folder("one_hot_pipeline"),
    "labels_from_one": over_folder("labels_from_one"),
    "two_pipelines": over_folder("two_pipelines"),
    "external_source": over_folder("external_source"),
    "padded_channels": over_folder("padded_channels"),
    "worker_thread": over_folder("worker_thread"),
    "two_views": over_folder("two_views"),
    "self_supervised": over_folder("self_supervised"),
    "proxy": over_folder("proxy"),
    "timm_train": over_dataset("timm_train", smoothing=0.1),
    "collate_workers": over_dataset("collate_workers"),
    "collate_persistent_workers": over_dataset("collate_workers", persistent_workers=True),
    "lightning_trainer": over_folder("lightning_trainer", needs=LIGHTNING),
    "lightning_trainer_2_ranks": on_two_ranks(
        "lightning_trainer", needs=LIGHTNING, reads_folder=True
    ),
    "accelerate_loop": over_dataset("accelerate_loop", needs=ACCELERATE),
    "accelerate_skip": over_dataset("accelerate_skip", needs=ACCELERATE),
    "accelerate_skip_2_ranks_resumed": on_two_ranks("accelerate_skip", 3, needs=ACCELERATE),
    "accelerate_loop_2_ranks_resumed": on_two_ranks("accelerate_loop", 3, needs=ACCELERATE),
    "transformers_trainer": lambda folder, out: [trained(out).received],
}
"""How each client is run on the folder of pictures, with an empty folder of its own."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module", autouse=True)
def without_nvtx():
    """dali_proxy marks its ranges for a profiler, which a CPU build of torch does not have."""
    with pytest.MonkeyPatch.context() as patch:
        if torch.version.cuda is None:
            for name in ("range_push", "range_pop"):
                patch.setattr(proxy._nvtx, name, lambda *message: None)
        yield


@pytest.fixture(scope="module")
def received_by(folder, tmp_path_factory):
    """Of a client's name, what each of its ranks received. A client runs once."""
    known = {}

    def receive(name):
        if name not in known:
            torch.manual_seed(0)
            known[name] = CLIENTS[name](folder, tmp_path_factory.mktemp(name))
        return known[name]

    return receive


@pytest.fixture(params=CLIENTS)
def received(request, received_by):
    return received_by(request.param)


def test_images_and_targets_belong_together(received):
    shown = torch.cat([weights_in(images) for rank in received for images in rank.images])
    said = torch.cat([rows for rank in received for rows in rank.targets])

    torch.testing.assert_close(shown, said, rtol=0, atol=0.004)  # pixels are rounded to 1 / 255


def test_every_sample_is_in_every_epoch_as_often_as_every_other(received):
    batches = [[weights_in(images) for images in rank.images] for rank in received]
    epochs = zip(*(by_epoch(weights, EPOCHS) for weights in batches), strict=True)

    sums = torch.stack([torch.cat([*chain(*ranks)]).sum(0) for ranks in epochs])

    times = torch.full((EPOCHS, SAMPLES), sums.sum().round() / sums.numel())
    assert times[0, 0].item().is_integer()
    torch.testing.assert_close(sums, times, rtol=0, atol=0.02)


def test_no_plan_is_used_twice(received):
    drawn = [lam for rank in received for rows in rank.targets for lam in lams_of(rows)]

    assert len(drawn) >= 6
    assert len(drawn) == len(set(drawn))


def test_padded_float16_images_stay_padded(received_by):
    ((images, _),) = received_by("padded_channels")

    assert {image.dtype for image in images} == {torch.float16}
    assert {tuple(image.shape[1:]) for image in images} == {(8, 8, 4)}
    assert not any(image[..., 3].any() for image in images)


def test_timms_switch_takes_effect_on_the_next_epoch(received_by):
    ((_, targets),) = received_by("timm_train")

    mixed = [any(lams_of(rows) for rows in epoch) for epoch in by_epoch(targets, EPOCHS)]

    assert mixed == [True, True, False]


def test_class_ids_stay_beside_the_targets(folder):
    client, model = import_module("runs.clients.labels_from_one"), Witness()

    images_of_class = client.train(folder, model, model.criterion)

    assert images_of_class == Counter(list(range(SAMPLES)) * EPOCHS)


def test_class_ids_that_start_at_1_are_refused(folder):
    client, model = import_module("runs.clients.labels_from_one"), Witness()

    with pytest.raises(ValueError, match=r"labels: expected .* got 14"):
        client.train(folder, model, model.criterion, first_class=0)


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5, 11])
def test_accelerate_goes_on_in_the_middle_of_an_epoch(received_by, stop_after):
    ((_, whole),) = received_by("accelerate_loop")
    client, stopped, resumed = import_module("runs.clients.accelerate_loop"), Witness(), Witness()

    state = client.train(dataset(), stopped, stopped.criterion, stop_after=stop_after)
    client.train(dataset(), resumed, resumed.criterion, state=state)

    torch.testing.assert_close(stopped.targets + resumed.targets, whole, rtol=0, atol=0)


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_of_accelerate_go_on_with_the_plans_of_their_number(received_by, rank):
    targets = received_by("accelerate_loop_2_ranks_resumed")[rank].targets
    mixup = Mixup(num_classes=SAMPLES, alpha=1.0, rank=rank)
    places = [(epoch, step) for epoch in range(EPOCHS) for step in range(2)]

    plans = [
        mixup.plan(len(rows), epoch=epoch, step=step)
        for rows, (epoch, step) in zip(targets, places, strict=True)
    ]

    assert [lams_of(rows) for rows in targets] == [lams_of(rows_of(plan)) for plan in plans]


def rows_of(plan):
    """The targets of samples with the class ids 0, 1, 2, ..."""
    _, targets = Mixup(num_classes=SAMPLES)(
        torch.zeros(len(plan), 3, 8, 8), torch.arange(len(plan)), plan=plan
    )
    return targets


def test_accelerate_cannot_skip_batches_past_the_mixing():
    accelerate = require("accelerate", backend="dali")
    loader = MixupLoader(
        torch.utils.data.DataLoader(dataset(), batch_size=4), Mixup(num_classes=SAMPLES)
    )

    with pytest.raises(AttributeError, match="do so with the loader and wrap the result"):
        accelerate.skip_first_batches(loader, 1)


class Training(NamedTuple):
    """A run of Transformers' Trainer: what its model received, its losses and final weights."""

    received: Received
    losses: list[torch.Tensor]
    weights: list[torch.Tensor]


def tiny_model():
    transformers = require("transformers", backend="dali")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", num_labels=SAMPLES
    )
    torch.manual_seed(0)
    return transformers.ResNetForImageClassification(config)


def trained(out, **options):
    model = tiny_model()
    client = import_module("runs.clients.transformers_trainer")
    images, targets, losses = [], [], []

    def kept_loss(outputs, labels, num_items_in_batch=None):
        loss = client.soft_cross_entropy(outputs, labels, num_items_in_batch)
        targets.append(labels.clone())
        losses.append(loss.detach().clone())
        return loss

    model.register_forward_pre_hook(
        lambda module, args, inputs: images.append(inputs["pixel_values"].clone()),
        with_kwargs=True,
    )
    client.train(dataset(), model, out, loss=kept_loss, **options)
    return Training(Received(images, targets), losses, list(model.state_dict().values()))


def test_the_trainer_goes_on_in_the_middle_of_an_epoch(tmp_path):
    whole = trained(tmp_path / "whole")

    resumed = trained(tmp_path / "resumed", checkpoint=tmp_path / "whole" / "checkpoint-6")

    assert len(resumed.losses) == 6
    torch.testing.assert_close(resumed.received.images, whole.received.images[6:], rtol=0, atol=0)
    torch.testing.assert_close(resumed.received.targets, whole.received.targets[6:], rtol=0, atol=0)
    torch.testing.assert_close(resumed.losses, whole.losses[6:], rtol=0, atol=0)
    torch.testing.assert_close(resumed.weights, whole.weights, rtol=0, atol=0)


def loader_trainer():
    """A Trainer whose loader mixes."""
    transformers = require("transformers", backend="dali")

    class LoaderTrainer(transformers.Trainer):
        def get_train_dataloader(self):
            return MixupLoader(
                super().get_train_dataloader(),
                Mixup(num_classes=SAMPLES, alpha=1.0),
                data_key="pixel_values",
                label_key="labels",
            )

    return LoaderTrainer


def test_the_trainer_cannot_skip_batches_past_the_mixing(tmp_path):
    trained(tmp_path, trainer_class=loader_trainer())

    with pytest.raises(AttributeError, match="do so with the loader and wrap the result"):
        trained(tmp_path, trainer_class=loader_trainer(), checkpoint=tmp_path / "checkpoint-6")


def test_the_trainer_without_skipping_mixes_the_interrupted_epoch_again(tmp_path):
    whole = trained(tmp_path, trainer_class=loader_trainer())

    resumed = trained(
        tmp_path,
        trainer_class=loader_trainer(),
        checkpoint=tmp_path / "checkpoint-6",
        ignore_data_skip=True,
    )

    torch.testing.assert_close(
        resumed.received.targets, whole.received.targets[4:10], rtol=0, atol=0
    )


def test_the_trainers_loss_is_the_mean_cross_entropy_of_its_batch(tmp_path):
    training = trained(tmp_path, learning_rate=0.0)

    (images, *_), (targets, *_) = training.received
    logits = tiny_model().train()(pixel_values=images).logits

    torch.testing.assert_close(
        training.losses[0], torch.nn.functional.cross_entropy(logits, targets).detach()
    )


def test_a_transformers_model_takes_soft_labels_for_several_classes_an_image(tmp_path):
    training = trained(tmp_path, learning_rate=0.0)
    (images, *_), (targets, *_) = training.received

    outputs = tiny_model().train()(pixel_values=images, labels=targets)

    binary = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits, targets)
    torch.testing.assert_close(outputs.loss, binary)
    assert outputs.loss < 0.5 * training.losses[0]


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5, 6, 11])
def test_accelerate_goes_on_with_the_batches_that_it_has_not_skipped(received_by, stop_after):
    ((_, whole),) = received_by("accelerate_skip")
    client, stopped, resumed = import_module("runs.clients.accelerate_skip"), Witness(), Witness()

    state = client.train(dataset(), stopped, stopped.criterion, stop_after=stop_after)
    client.train(dataset(), resumed, resumed.criterion, state=state)

    torch.testing.assert_close(stopped.targets + resumed.targets, whole, rtol=0, atol=0)
