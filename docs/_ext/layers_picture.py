"""The package's layers as a picture, drawn from the contract that ``make lint`` checks."""

from pathlib import Path

import tomllib
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
WIDTH, HEIGHT, STEP, BOX = 640, 34, 62, 140


class Layers(SphinxDirective):
    """Each layer imports only from the layers below it."""

    def run(self):
        self.env.note_dependency(str(PYPROJECT))
        contracts = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]
        layers = next(c["layers"] for c in contracts if c["name"] == "Layers")
        return [nodes.raw("", picture([layer.split(" | ") for layer in layers]), format="html")]


def picture(layers):
    height = STEP * len(layers) - (STEP - HEIGHT) + 4
    label = "Layers of the package, each importing only from those below"
    parts = [f'<svg class="layers" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">']
    for floor, modules in enumerate(layers):
        top = 2 + floor * STEP
        left = (WIDTH - len(modules) * (BOX + 16) + 16) / 2
        for module in modules:
            parts.append(
                f'<rect x="{left}" y="{top}" width="{BOX}" height="{HEIGHT}" rx="6"/>'
                f'<text x="{left + BOX / 2}" y="{top + HEIGHT / 2 + 5}">{module}</text>'
            )
            left += BOX + 16
        if floor:
            y = top - 5
            parts.append(
                f'<path d="M{WIDTH / 2} {top - STEP + HEIGHT + 4} V{y} m-5 -6 l5 6 l5 -6"/>'
            )
    return "".join([*parts, "</svg>"])


def setup(app):
    app.add_directive("layers", Layers)
    return {"parallel_read_safe": True}
