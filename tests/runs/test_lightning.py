"""Under Lightning's Trainer: a DataModule's loaders mix, stop and go on with its checkpoints."""

import sys
from types import ModuleType

import pytest
from support.requirements import require

from dali_mixup import Mixup, MixupLoader, dali_checkpoints

torch = require("torch", backend="lightning")
# Lightning imports torchvision where there is one, and that may be built for another torch.
sys.modules.setdefault("torchvision._meta_registrations", ModuleType("operators"))
lightning = require("lightning")

# What Lightning itself warns of.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
]

CLASSES, BATCH, SIZE = 3, 3, 16
EPOCHS = 3


class Classifier(lightning.LightningModule):
    """Keeps what it was given to train and to validate on."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(SIZE * SIZE * 3, CLASSES)
        self.trained, self.validated = [], []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-7)

    def training_step(self, batch, index):
        images, targets = parts(batch)
        self.trained.append((self.current_epoch, index, images.numpy().tobytes(), targets.tolist()))
        return torch.nn.functional.cross_entropy(self.linear(images.flatten(1).float()), targets)

    def validation_step(self, batch, index):
        self.validated.append(parts(batch))


def parts(batch):
    """Images and labels of (images, labels) or of DALI's [dict]."""
    return batch if len(batch) == 2 else (batch[0]["data"], batch[0]["label"])


def mixup_of_run():
    return Mixup(num_classes=CLASSES, alpha=1.0, mode="elem", seed=3)


class Batches:
    """Five batches, in order; the first pass begins at `start`."""

    def __init__(self, start=0):
        generator = torch.Generator().manual_seed(0)
        shape = 5, BATCH, SIZE, SIZE, 3
        self.images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        self.start = start

    def __len__(self):
        return len(self.images)

    def __iter__(self):
        start, self.start = self.start, 0
        for images in self.images[start:]:
            yield images, torch.arange(BATCH)


class Tensors(lightning.LightningDataModule):
    """Tensors in memory, through MixupLoader."""

    def __init__(self):
        super().__init__()
        self.state = self.loader = None

    def train_dataloader(self):
        self.loader = MixupLoader(
            Batches(self.state["step"] % 5 if self.state else 0), mixup_of_run()
        )
        if self.state:
            self.loader.load_state_dict(self.state)
        return self.loader

    def val_dataloader(self):
        return Batches()

    def state_dict(self):
        return self.loader.state_dict()

    def load_state_dict(self, state):
        self.state = state


class Photographs(lightning.LightningDataModule):
    """DALI's iterators over a folder; the training one is made when it is known where to start."""

    def __init__(self, folder, wrapped):
        super().__init__()
        self.folder, self.wrapped = folder, wrapped
        self.state = self.loader = None

    def train_dataloader(self):
        plugin = require("nvidia.dali.plugin.pytorch", backend="dali")
        from dali_mixup import MixupClassificationIterator, image_pipeline

        pipe = image_pipeline(
            self.folder, BATCH, SIZE, "cpu", seed=7, num_threads=1, enable_checkpointing=True,
            checkpoint=dali_checkpoints(self.state)[0] if self.state else None,
        )  # fmt: skip
        partial = plugin.LastBatchPolicy.PARTIAL
        options = {"reader_name": "Reader", "auto_reset": True, "last_batch_policy": partial}
        if self.wrapped:
            inner = plugin.DALIClassificationIterator(pipe, **options)
            self.loader = MixupLoader(inner, mixup_of_run())
        else:
            self.loader = MixupClassificationIterator(pipe, mixup=mixup_of_run(), **options)
        if self.state:
            self.loader.load_state_dict(self.state)
        return self.loader

    def val_dataloader(self):
        plugin = require("nvidia.dali.plugin.pytorch", backend="dali")
        from dali_mixup import validation_pipeline

        pipe = validation_pipeline(self.folder, BATCH, SIZE, "cpu", resize=20, num_threads=1)
        partial = plugin.LastBatchPolicy.PARTIAL
        return plugin.DALIClassificationIterator(
            pipe, reader_name="Reader", auto_reset=True, last_batch_policy=partial
        )

    def state_dict(self):
        return self.loader.state_dict()

    def load_state_dict(self, state):
        self.state = state


@pytest.fixture(params=["tensors", "iterator", "wrapped iterator"])
def make_data(request, photo_folder):
    """Makes a DataModule whose epochs have 5 batches."""
    if request.param == "tensors":
        return Tensors
    require("nvidia.dali")
    return lambda: Photographs(photo_folder, wrapped=request.param == "wrapped iterator")


def fit(data, folder, *, save_every=100, checkpoint=None):
    save = lightning.pytorch.callbacks.ModelCheckpoint(
        folder, "{step}", every_n_train_steps=save_every, save_top_k=-1
    )
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[save],
    )  # fmt: skip
    model = Classifier()
    trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
    return model


def places_of(model):
    return [(epoch, step) for epoch, step, *_ in model.trained]


def test_every_batch_of_every_epoch_is_trained_on_once(make_data, tmp_path):
    model = fit(make_data(), tmp_path)

    assert places_of(model) == [(epoch, step) for epoch in range(EPOCHS) for step in range(5)]


def test_training_is_mixed_and_validation_is_not(make_data, tmp_path):
    model = fit(make_data(), tmp_path)

    assert any(0 < share < 1 for *_, targets in model.trained for row in targets for share in row)
    assert len(model.validated) == 5 * EPOCHS
    assert not any(labels.is_floating_point() for _, labels in model.validated)


def test_an_epochs_plans_are_those_of_its_number(make_data, tmp_path):
    model = fit(make_data(), tmp_path)

    for epoch, step, _, targets in model.trained:
        plan = mixup_of_run().plan(len(targets), epoch=epoch, step=step)
        largest = torch.tensor(targets).amax(1)
        lam = torch.tensor(plan.lam)
        assert ((largest == 1) | (largest == torch.maximum(lam, 1 - lam))).all()


@pytest.mark.parametrize("stopped_after", [1, 5, 7, 10, 14])
def test_a_run_that_stops_goes_on_by_the_trainers_own_checkpoint(
    make_data, tmp_path, stopped_after
):
    whole = fit(make_data(), tmp_path / "whole", save_every=stopped_after)
    checkpoint = tmp_path / "whole" / f"step={stopped_after}.ckpt"

    resumed = fit(
        make_data(), tmp_path / "resumed", save_every=stopped_after, checkpoint=checkpoint
    )

    assert places_of(resumed) == places_of(whole)[stopped_after:]
    assert resumed.trained == whole.trained[stopped_after:]
