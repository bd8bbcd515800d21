"""Transformers' Trainer, with a plan for each of its optimiser's steps."""

import transformers
from torch.nn.functional import cross_entropy
from torch.utils.data import default_collate

from dali_mixup import Mixup

mixup = Mixup(num_classes=14, alpha=1.0)


def collate(samples):
    images, labels = default_collate(samples)
    return {"pixel_values": images, "labels": labels}


def soft_cross_entropy(outputs, labels, num_items_in_batch=None):
    if num_items_in_batch is None:
        return cross_entropy(outputs.logits, labels)
    return cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


class PlanOfStep(transformers.TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        mixup.set_epoch(state.global_step)


class MixupTrainer(transformers.Trainer):
    def training_step(self, model, inputs, num_items_in_batch=None):
        images, targets = mixup(inputs["pixel_values"], inputs["labels"])
        inputs = {**inputs, "pixel_values": images, "labels": targets}
        return super().training_step(model, inputs, num_items_in_batch)


def train(
    dataset,
    model,
    folder,
    checkpoint=None,
    loss=soft_cross_entropy,
    trainer_class=MixupTrainer,
    **arguments,
):
    trainer = trainer_class(
        model,
        transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=4,
            num_train_epochs=3,
            save_strategy="steps",
            save_steps=6,
            remove_unused_columns=False,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            **arguments,
        ),
        data_collator=collate,
        train_dataset=dataset,
        compute_loss_func=loss,
        callbacks=[PlanOfStep()],
    )
    trainer.train(resume_from_checkpoint=checkpoint)
