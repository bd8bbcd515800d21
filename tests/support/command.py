"""The command, called in this process, and what it draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from support.requirements import require

require("torch")
require("nvidia.dali", backend="dali")
testing: Any = require("typer.testing", backend="dali")
Image: Any = require("PIL.Image", backend="dali")
require("matplotlib", backend="dali")


def run(*arguments: object) -> Any:
    """The exit code and the output of ``dali-mixup`` with these arguments."""
    from dali_mixup.cli.app import app

    return testing.CliRunner().invoke(app, [str(argument) for argument in arguments])


def picture(path: str | Path) -> np.ndarray:
    """uint8 (H, W, 3), RGB."""
    return np.asarray(Image.open(path).convert("RGB"))
