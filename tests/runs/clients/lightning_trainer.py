"""PyTorch Lightning over DALI's iterator, on one or several ranks."""

import os

import lightning
import torch
from nvidia.dali.plugin.pytorch import LastBatchPolicy

from dali_mixup import Mixup, MixupClassificationIterator, OutputFormat, image_pipeline

RANK = int(os.environ.get("RANK", 0))
WORLD_SIZE = int(os.environ.get("WORLD_SIZE", 1))


class Classifier(lightning.LightningModule):
    def __init__(self, model, criterion):
        super().__init__()
        self.model, self.criterion = model, criterion

    def training_step(self, batch, index):
        (outputs,) = batch
        return self.criterion(self.model(outputs["data"]), outputs["label"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def train(folder, model, criterion):
    pipeline = image_pipeline(
        folder,
        batch_size=4,
        image_size=8,
        device="cpu",
        shard_id=RANK,
        num_shards=WORLD_SIZE,
        seed=RANK,
        random_area=(1.0, 1.0),
        random_aspect_ratio=(1.0, 1.0),
        mirror_probability=0.0,
    )
    loader = MixupClassificationIterator(
        pipeline,
        reader_name="Reader",
        auto_reset=True,
        last_batch_policy=LastBatchPolicy.PARTIAL,
        mixup=Mixup(num_classes=14, alpha=1.0, output=OutputFormat(dtype="float32", layout="CHW")),
    )
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        devices=WORLD_SIZE,
        strategy="ddp" if WORLD_SIZE > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(model, criterion), train_dataloaders=loader)
