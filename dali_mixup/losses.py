"""Losses and accuracy for mixed targets, dense or as pairs."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.nn import functional

from dali_mixup.advice import DoubleSmoothingWarning
from dali_mixup.checks import require_choice, require_real

Pairs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def mixup_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor | Pairs,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> torch.Tensor:
    """Cross entropy with mixed targets.

    For pairs ``lam * ce(own) + (1 - lam) * ce(partner)``, which equals the cross entropy with dense
    rows but needs none. Only the logits are saved for the backward pass. Rows of zeros, which
    ``Mixup(ignore_index=...)`` makes, do not count.

    Parameters
    ----------
    logits : tensor, shape (B, num_classes)
        float16 and bfloat16 are computed in float32, as under autocast.
    targets : tensor (B, num_classes), or (own, partner, lam) of shape (B,) each
        As ``Mixup(targets="soft")`` or ``Mixup(targets="pairs")`` hands them out.
    label_smoothing : float in [0, 1)
        Here or in ``Mixup``, not in both.
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    float32 tensor
        A scalar, or shape (B,) for "none".

    Raises
    ------
    TypeError, ValueError
        Targets or shapes outside the above.

    Warns
    -----
    DoubleSmoothingWarning
        `label_smoothing` is set and dense rows on the CPU are already smoothed: they have more than
        two classes and no weight is 0. Rows on a GPU are not looked at, which would synchronise.
    """
    require_real("label_smoothing", label_smoothing, "[0, 1)", lambda v: 0 <= v < 1)
    require_choice("reduction", reduction, ("mean", "sum", "none"), optional=False)
    logits = _as_rows(logits)
    if isinstance(targets, torch.Tensor):
        _require_rows(targets, logits)
        if label_smoothing and targets.device.type == "cpu" and _smoothed(targets):
            warnings.warn(
                f"label_smoothing={label_smoothing} on targets that are smoothed already; "
                "give it to Mixup or to the loss, not to both",
                DoubleSmoothingWarning,
                stacklevel=2,
            )
        rows = functional.cross_entropy(
            logits, targets, label_smoothing=label_smoothing, reduction="none"
        )
        return _reduced(rows, targets, reduction)
    own, partner, lam = _require_pairs(targets, logits)
    losses: torch.Tensor = _PairCrossEntropy.apply(logits, own, partner, lam, label_smoothing)  # type: ignore[no-untyped-call]
    return losses if reduction == "none" else getattr(losses, reduction)()


def mixup_binary_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor | Pairs,
    *,
    threshold: float | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Binary cross entropy of each class with mixed targets.

    Wightman et al., "ResNet strikes back" (2021), and Touvron et al., "DeiT III" (2022), train with
    it. It equals ``torch.nn.functional.binary_cross_entropy_with_logits`` with dense rows. For
    pairs no rows are built, and only the logits are saved for the backward pass.

    Parameters
    ----------
    logits : tensor, shape (B, num_classes)
        float16 and bfloat16 are computed in float32, as under autocast.
    targets : tensor (B, num_classes), or (own, partner, lam) of shape (B,) each
        As ``Mixup(targets="soft")`` or ``Mixup(targets="pairs")`` hands them out. Rows of zeros
        mean "no class" and count; leave out those that ``Mixup(ignore_index=...)`` makes.
    threshold : float in [0, 1), optional
        Weights above it become 1, all others 0. DeiT III: 0; timm's ``--bce-target-thresh``.
    reduction : {"mean", "sum", "none"}
        Over all B x num_classes losses.

    Returns
    -------
    float32 tensor
        A scalar, or shape (B, num_classes) for "none".

    Raises
    ------
    TypeError, ValueError
        Targets or shapes outside the above; or all weights of dense rows on the CPU are above
        `threshold`, as label smoothing makes them. Rows on a GPU are not looked at.
    """
    if threshold is not None:
        require_real("threshold", threshold, "[0, 1) or None", lambda v: 0 <= v < 1)
    require_choice("reduction", reduction, ("mean", "sum", "none"), optional=False)
    logits = _as_rows(logits)
    if isinstance(targets, torch.Tensor):
        _require_rows(targets, logits)
        if threshold is not None and _all_above(targets, threshold):
            raise ValueError(
                f"threshold: expected one that some weights are not above, got {threshold}, which "
                "makes every class a target; set Mixup(label_smoothing=0)"
            )
        rows = (targets if threshold is None else targets > threshold).to(logits.dtype)
        return functional.binary_cross_entropy_with_logits(logits, rows, reduction=reduction)
    own, partner, lam = _require_pairs(targets, logits)
    own_weight = torch.where(own == partner, 1.0, lam)
    partner_weight = 1 - own_weight
    if threshold is not None:
        own_weight, partner_weight = own_weight > threshold, partner_weight > threshold
    losses: torch.Tensor = _PairBinaryCrossEntropy.apply(  # type: ignore[no-untyped-call]
        logits, own, partner, own_weight.to(logits.dtype), partner_weight.to(logits.dtype)
    )
    return losses if reduction == "none" else getattr(losses, reduction)()


def mixup_accuracy(logits: torch.Tensor, targets: torch.Tensor | Pairs) -> torch.Tensor:
    """Return the weight that the targets give to the predicted classes, averaged over the batch.

    For pairs ``lam * (prediction == own) + (1 - lam) * (prediction == partner)``. Where nothing is
    mixed or smoothed it is the accuracy.

    Parameters
    ----------
    logits : tensor, shape (B, num_classes)
    targets : tensor (B, num_classes), or (own, partner, lam) of shape (B,) each

    Returns
    -------
    float32 tensor
        A scalar in [0, 1].
    """
    prediction = logits.argmax(1)
    if isinstance(targets, torch.Tensor):
        _require_rows(targets, logits)
        return _reduced(targets.gather(1, prediction[:, None])[:, 0], targets, "mean")
    own, partner, lam = _require_pairs(targets, logits)
    return (lam * (prediction == own) + (1 - lam) * (prediction == partner)).mean()


class _PairCrossEntropy(torch.autograd.Function):
    """Losses (B,) of logits (B, num_classes) with two classes a row."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        own: torch.Tensor,
        partner: torch.Tensor,
        lam: torch.Tensor,
        smoothing: float,
    ) -> torch.Tensor:
        lam = lam.to(logits.dtype)
        ctx.save_for_backward(logits, own, partner, lam)
        ctx.smoothing = smoothing
        logs = logits.log_softmax(1)
        at_own = logs.gather(1, own[:, None])[:, 0]
        at_partner = logs.gather(1, partner[:, None])[:, 0]
        likelihood = lam * at_own + (1 - lam) * at_partner
        if smoothing:
            likelihood = (1 - smoothing) * likelihood + smoothing * logs.mean(1)
        return -likelihood

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits, own, partner, lam = ctx.saved_tensors
        keep, off = 1 - ctx.smoothing, ctx.smoothing / logits.shape[1]
        slope = logits.softmax(1)
        if off:
            slope -= off
        slope.scatter_add_(1, own[:, None], -keep * lam[:, None])
        slope.scatter_add_(1, partner[:, None], -keep * (1 - lam)[:, None])
        slope *= grad[:, None]
        return slope, None, None, None, None


class _PairBinaryCrossEntropy(torch.autograd.Function):
    """Losses (B, num_classes) of logits with the weights of two classes a row."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        own: torch.Tensor,
        partner: torch.Tensor,
        own_weight: torch.Tensor,
        partner_weight: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(logits, own, partner, own_weight, partner_weight)
        losses = functional.softplus(logits)
        for ids, weight in ((own, own_weight), (partner, partner_weight)):
            losses.scatter_add_(1, ids[:, None], -weight[:, None] * logits.gather(1, ids[:, None]))
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits, own, partner, own_weight, partner_weight = ctx.saved_tensors
        slope = logits.sigmoid()
        slope.scatter_add_(1, own[:, None], -own_weight[:, None])
        slope.scatter_add_(1, partner[:, None], -partner_weight[:, None])
        slope *= grad
        return slope, None, None, None, None


def _as_rows(logits: torch.Tensor) -> torch.Tensor:
    if logits.ndim != 2:
        raise ValueError(f"logits: expected shape (B, num_classes), got {tuple(logits.shape)}")
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _reduced(values: torch.Tensor, targets: torch.Tensor, reduction: str) -> torch.Tensor:
    """The values of the rows that count: not those of zeros, which ``ignore_index`` makes."""
    counted = targets.ne(0).any(1)
    values = torch.where(counted, values, torch.zeros_like(values))
    if reduction == "none":
        return values
    return values.sum() / counted.sum().clamp(min=1) if reduction == "mean" else values.sum()


def _all_above(rows: torch.Tensor, threshold: float) -> bool:
    """Whether rows on the CPU, of three classes or more, have all weights above the threshold."""
    if rows.device.type != "cpu" or rows.shape[1] <= 2 or not rows.numel():
        return False
    return bool((rows > threshold).all())


def _smoothed(rows: torch.Tensor) -> bool:
    """Unsmoothed rows of two mixed labels have two cells above 0."""
    return rows.shape[1] > 2 and rows.numel() > 0 and bool((rows > 0).all())


def _require_rows(targets: torch.Tensor, logits: torch.Tensor) -> None:
    if targets.shape != logits.shape:
        raise ValueError(
            f"targets: expected dense rows {tuple(logits.shape)} as logits have, "
            f"got {tuple(targets.shape)}; for values take a loss such as torch's mse_loss"
        )


def _require_pairs(targets: Any, logits: torch.Tensor) -> Pairs:
    if not isinstance(targets, (tuple, list)) or len(targets) != 3:
        raise TypeError(
            "targets: expected a tensor of dense rows or (own, partner, lam), "
            f"got {type(targets).__name__}"
        )
    size = (logits.shape[0],)
    if any(tuple(part.shape) != size for part in targets):
        raise ValueError(
            f"targets: expected own, partner and lam of shape {size}, "
            f"got {[tuple(part.shape) for part in targets]}"
        )
    own, partner, lam = targets
    return own, partner, lam
