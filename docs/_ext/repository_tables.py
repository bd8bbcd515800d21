"""Tables made from what the repository holds: recorded results, recipes, the command's options."""

import json
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from dali_mixup.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
MIXING = ("alpha", "cutmix_alpha", "label_smoothing")


class TableDirective(SphinxDirective):
    """A directive that makes a table; cells are Markdown."""

    def table(self, head, rows):
        group = nodes.tgroup(cols=len(head))
        group += [nodes.colspec(colwidth=1) for _ in head]
        group += nodes.thead("", self.row(head))
        group += nodes.tbody("", *map(self.row, rows))
        return nodes.table("", group, classes=["recorded"])

    def row(self, cells):
        return nodes.row("", *(nodes.entry("", *self.parse_text_to_nodes(cell)) for cell in cells))


class Results(TableDirective):
    """Rows of a file of ``benchmarks/results``, and where they come from.

    ``where`` keeps the rows with these values, ``across`` makes columns of the values of a column,
    and ``values`` names the columns to show: ``name = heading``, or ``name ± name = heading``.
    """

    required_arguments = 1
    option_spec = {  # noqa: RUF012
        "where": directives.unchanged,
        "across": directives.unchanged,
        "label": directives.unchanged,
        "values": directives.unchanged_required,
    }

    def run(self):
        path = RESULTS / self.arguments[0]
        self.env.note_dependency(str(path))
        run = json.loads(path.read_text())
        wanted = pairs(self.options.get("where", ""))
        label = self.options.get("label", "method")
        rows = [
            row
            for row in run["rows"]
            if label in row and all(str(row.get(key)) == value for key, value in wanted.items())
        ]
        if not rows:
            raise self.error(f"{path.name} has no rows where {wanted}")
        across = self.options.get("across")
        groups = list(dict.fromkeys(row.get(across) for row in rows))
        values = pairs(self.options["values"])
        head = [label] + [
            f"{heading}, {group}" if across else heading
            for group in groups
            for heading in values.values()
        ]
        body = []
        for name in dict.fromkeys(row[label] for row in rows):
            found = {row.get(across): row for row in rows if row[label] == name}
            cells = [cell(found.get(group, {}), value) for group in groups for value in values]
            body.append([f"**{name}**" if "dali-mixup" in name else name, *cells])
        return [self.table(head, body), self.provenance(run, path)]

    def provenance(self, run, path):
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        cores = f"{run['cores']} core" + "s" * (run["cores"] != 1)
        machine = run.get("card", f"{run['machine']}, {cores}")
        text = (
            f"{machine}; {versions}; commit `{run['commit'][:10]}`. `{run['command']}`. "
            f"All figures: `benchmarks/results/{path.name}`."
        )
        return nodes.container("", *self.parse_text_to_nodes(text), classes=["provenance"])


class Recipes(TableDirective):
    """The published trainings of ``dali_mixup.recipes``."""

    def run(self):
        head = ["name", "mixup", "CutMix", "smoothing", "loss", "reported"]
        rows = [
            [
                f"`{recipe.name}`",
                *(f"{recipe.mixup.get(key, 0):g}" for key in MIXING),
                recipe.loss["name"].removeprefix("mixup_").replace("_", " "),
                recipe.reported,
            ]
            for recipe in RECIPES.values()
        ]
        return [self.table(head, rows)]


class RecipeSettings(TableDirective):
    """All settings of each recipe."""

    def run(self):
        return [self.settings(recipe) for recipe in RECIPES.values()]

    def settings(self, recipe):
        lines = {
            "Source": recipe.source,
            "Left out or otherwise": recipe.left_out,
            "Model": f"`{recipe.model}`, {recipe.image_size} pixels, "
            + settings(recipe.model_options),
            "Mixing": settings(recipe.mixup),
            "Pipeline": settings(recipe.pipeline),
            "Loss": settings(recipe.loss),
            "Optimiser": settings(recipe.optimizer),
            "Layer decay": recipe.layer_decay,
            "Largest gradient norm": recipe.clip_grad_norm,
            "Schedule": f"{recipe.epochs} epochs of {recipe.batch_size} images a step, "
            + settings(recipe.schedule),
        }
        fields = [
            nodes.field(
                "",
                nodes.field_name("", name),
                nodes.field_body("", nodes.paragraph("", "", *self.parse_text_to_nodes(text))),
            )
            for name, text in ((name, str(value).rstrip(", ")) for name, value in lines.items())
            if text not in ("", "None")
        ]
        return nodes.container(
            "", nodes.rubric("", recipe.name), nodes.field_list("", *fields), classes=["recipe"]
        )


class CommandOptions(TableDirective):
    """The options of one command of ``dali-mixup``."""

    required_arguments = 1

    def run(self):
        from typer.main import get_command

        from dali_mixup.cli.app import app

        command = get_command(app).commands[self.arguments[0]]
        rows = []
        for option in command.params:
            name = option.opts[0] if option.param_type_name == "option" else option.name.upper()
            default = option.default
            shown = "" if default is None or default is ... else f"`{default}`"
            rows.append([f"`{name}`", shown, getattr(option, "help", None) or ""])
        summary = self.parse_text_to_nodes(command.help)
        return [*summary, self.table(["option", "default", "meaning"], rows)]


def pairs(text):
    """``{"a": "b"}`` of ``a = b; ...``."""
    parts = (part.partition("=") for part in text.replace("\n", " ").split(";") if part.strip())
    return {key.strip(): value.strip() for key, _, value in parts}


def cell(row, value):
    """The figures of one cell; a dash where nothing was measured."""
    found = [row.get(name.strip()) for name in value.split("±")]
    if None in found:
        return r"\-"  # a hyphen alone would be a list in Markdown
    if isinstance(found[0], str):
        return found[0]
    if len(found) == 2:
        return f"{found[0]:+.1f} ± {found[1]:.1f}"
    return f"{found[0]:.3g}" if abs(found[0]) < 100 else f"{found[0]:,.0f}"


def settings(mapping):
    shown = (f"{value:.3g}" if type(value) is float else value for value in mapping.values())
    named = zip(mapping, shown, strict=True)
    return ", ".join(f"{value}" if name == "name" else f"`{name}` {value}" for name, value in named)


def setup(app):
    app.add_directive("results", Results)
    app.add_directive("recipes", Recipes)
    app.add_directive("recipe-settings", RecipeSettings)
    app.add_directive("command-options", CommandOptions)
    return {"parallel_read_safe": True}
