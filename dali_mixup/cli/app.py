"""The command ``dali-mixup``: look at what is mixed, time it here, examine this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from dali_mixup.checks import require_choice
from dali_mixup.cli.doctor import BAD, GOOD, NOTE, examine
from dali_mixup.cli.measure import Row, card, interleaved, record
from dali_mixup.cli.users_code import UsersCodeError

app = typer.Typer(
    help="Mixup and CutMix for NVIDIA DALI loaders.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()

Said = (TypeError, ValueError, OSError, RuntimeError, ImportError)


def without_traceback(command: Callable[..., None]) -> Callable[..., None]:
    """What the library says about bad input, and a user's code about itself, is enough."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except typer.Exit:  # a RuntimeError too
            raise
        except UsersCodeError as error:
            Console(stderr=True).print(Text(str(error)), soft_wrap=True)
            raise typer.Exit(1) from error
        except Said as error:
            message = Text.assemble((type(error).__name__, "red"), f": {error}")
            Console(stderr=True).print(message, soft_wrap=True)
            raise typer.Exit(2) from error

    return run


@app.command("preview")
@without_traceback
def preview_command(
    source: Annotated[str, typer.Argument(help="FOLDER with one folder a class, MODULE:PIPELINE")],
    out: Annotated[Path, typer.Option(help="Where the picture goes")] = Path("preview.png"),
    count: Annotated[int, typer.Option(min=1, help="Images to show")] = 16,
    recipe: Annotated[
        str | None,
        typer.Option(help="Augment and mix as this recipe; for a folder. dali-mixup recipes"),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=8, help="Pixels; for a folder (default: the recipe's, or 224)")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or gpu; for a folder")] = "cpu",
    alpha: Annotated[
        float | None, typer.Option(help="Mixup's; 0 turns it off (default: the recipe's, or 0.2)")
    ] = None,
    cutmix_alpha: Annotated[
        float | None, typer.Option(help="CutMix's; 0 turns it off (default: the recipe's, or 0)")
    ] = None,
    switch_prob: Annotated[
        float | None, typer.Option(help="Share of CutMix with both on (default: 0.5)")
    ] = None,
    prob: Annotated[float | None, typer.Option(help="Share that is mixed (default: 1)")] = None,
    mode: Annotated[str, typer.Option(help="batch, elem or pair")] = "elem",
    pairing: Annotated[
        str | None,
        typer.Option(
            help="permutation, derangement, flip or roll (default: the recipe's, or permutation)"
        ),
    ] = None,
    layout: Annotated[str | None, typer.Option(help="HWC or CHW, where it is ambiguous")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw a contact sheet: a batch of your images, mixed by these settings."""
    from dali_mixup.cli.preview import preview

    given = {
        "alpha": alpha,
        "cutmix_alpha": cutmix_alpha,
        "switch_prob": switch_prob,
        "prob": prob,
        "mode": mode,
        "pairing": pairing,
        "layout": layout,
        "seed": seed,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    sheet = preview(
        source, count=count, recipe_name=recipe, image_size=image_size, device=device, **settings
    )
    sheet.save(out)
    console.print(f"{out}: {sheet.width} x {sheet.height} pixels")


@app.command("recipes")
@without_traceback
def recipes_command() -> None:
    """List the published trainings of dali_mixup.recipes."""
    from dali_mixup.recipes import RECIPES

    table = Table(box=None)
    table.add_column("name", no_wrap=True)
    for heading in ("mixup", "CutMix", "smoothing"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("loss", no_wrap=True)
    table.add_column("beside")
    for found in RECIPES.values():
        mixing = (found.mixup.get(key, 0) for key in ("alpha", "cutmix_alpha", "label_smoothing"))
        loss = "BCE" if "binary" in found.loss["name"] else "CE"
        pipeline = [f"{name} {value}".replace("_", " ") for name, value in found.pipeline.items()]
        beside = ", ".join([*pipeline, found.optimizer["name"], f"{found.epochs} epochs"])
        table.add_row(found.name, *(f"{v:g}" for v in mixing), loss, Text(beside))
    console.print(table)
    console.print(
        "Source and reported result: dali_mixup.recipes.recipe(NAME)\n"
        "A look at one: dali-mixup preview FOLDER --recipe NAME"
    )


@app.command()
@without_traceback
def bench(
    images: Annotated[
        Path | None, typer.Option(help="A folder of images: times a whole DALI loader too")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    image_size: Annotated[int, typer.Option(min=1, help="Pixels")] = 224,
    num_classes: Annotated[int, typer.Option(min=1)] = 1000,
    device: Annotated[str | None, typer.Option(help="cpu or cuda (default: what is there)")] = None,
    from_dtype: Annotated[
        str, typer.Option(help="uint8 is normalised on the way, float is not")
    ] = "uint8",
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, float16 or bfloat16 (default: 32 on a CPU, 16 on a GPU)"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of torch and of DALI (default: all cores)")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 30,
    json: Annotated[Path | None, typer.Option(help="Record the run here")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the run here")] = None,
) -> None:
    """Time mixing on this machine: beside a copy, torch, timm, torchvision and kornia."""
    import torch

    from dali_mixup.cli.bench import Work, loaders, methods, microseconds_an_image
    from dali_mixup.cli.peers import PEERS

    require_choice("from-dtype", from_dtype, ("uint8", "float"), optional=False)
    require_choice("device", device, ("cpu", "cuda"))
    require_choice("dtype", dtype, ("float32", "float16", "bfloat16"))
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: expected 'cpu' where torch sees no GPU, got 'cuda'")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    threads = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    if images is not None and not images.is_dir():
        raise FileNotFoundError(f"images: expected a folder with one folder a class, got {images}")
    work = Work(
        batch_size,
        image_size,
        num_classes,
        from_uint8=from_dtype == "uint8",
        dtype=dtype or {"cpu": "float32", "cuda": "float16"}[device],
        device=device,
    )

    def measure(what: str, timers: Any, count: int, unit: str, bases: dict[str, str]) -> list[Row]:
        def progress(steps: Any) -> Any:
            return track(list(steps), what, console=console, transient=True)

        return interleaved(timers, rounds=count, warm_up=2, unit=unit, bases=bases, track=progress)

    timers = {
        name: method and partial(microseconds_an_image, method, work)
        for name, method in methods(work).items()
    }
    rows = measure("batches", timers, rounds, "us", {"copy": "copy", "ours": "dali-mixup"})
    show(f"{work.title}\nmicroseconds an image; torch with {threads} threads", rows)
    recorded = [{"work": work.title} | row for row in rows]
    if images is None:
        console.print("The whole loader was not timed: give --images FOLDER.")
    else:
        speeds = loaders(images, work, threads)
        loader_rows = measure(
            "loaders",
            speeds,
            max(3, rounds // 4),
            "images_per_s",
            {"not_mixed": "loader, not mixed"},
        )
        show(f"DALI loader over {images}, {threads} threads: images a second", loader_rows)
        recorded += [{"work": f"DALI loader, batches of {batch_size}"} | row for row in loader_rows]
    if png:
        from dali_mixup.cli.chart import draw_bars

        draw_bars(png, work.title, rows, "us")
        console.print(f"{png}: the first table as bars")
    if json:
        hardware = card() if device == "cuda" else {}
        packages = ("dali-mixup", "numpy", "numba", "torch", *PEERS)
        record(json, cores=threads, packages=packages, rows=recorded, **hardware)
        console.print(f"{json}: all figures, with machine and versions")


def show(title: str, rows: list[Row]) -> None:
    columns = [column for column in rows[0] if column != "method"]
    missing = any(row[columns[0]] is None for row in rows)
    caption = "-: not installed, or does not take such a batch" if missing else None
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("method", no_wrap=True)
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        cells = ["-" if row[c] is None else f"{row[c]:.4g}" for c in columns]
        table.add_row(row["method"], *cells, style="bold" if "mixup" in row["method"] else None)
    console.print(table)


@app.command()
@without_traceback
def doctor(
    backend: Annotated[
        str, typer.Option(help="What has to work: auto, numpy or cupy; for CI")
    ] = "auto",
) -> None:
    """Say what is installed, what would be used, what is missing; exit 1 if something is bad."""
    require_choice("backend", backend, ("auto", "numpy", "cupy"), optional=False)
    marks = {GOOD: "[green]ok[/]", NOTE: "[yellow]--[/]", BAD: "[red]BAD[/]"}
    table = Table(show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    findings = examine(backend)
    for finding in findings:
        table.add_row(marks[finding.state], finding.what, Text(finding.detail))
        if finding.advice:
            table.add_row("", "", Text(f"-> {finding.advice}", "italic"))
    console.print(table)
    if any(finding.state == BAD for finding in findings):
        raise typer.Exit(1)
