"""Published trainings with mixup as data: options of the pipeline, ``Mixup`` and the optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dali_mixup.checks import require_choice
from dali_mixup.recipes.convolutional import CONVOLUTIONAL
from dali_mixup.recipes.definition import IMAGENET, Recipe
from dali_mixup.recipes.transformers import TRANSFORMERS

__all__ = ["IMAGENET", "RECIPES", "Recipe", "recipe"]

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {found.name: found for found in (*TRANSFORMERS, *CONVOLUTIONAL)}
)
"""All recipes by name."""


def recipe(name: str) -> Recipe:
    """Return a recipe.

    Parameters
    ----------
    name : str
        One of :data:`RECIPES`.

    Returns
    -------
    Recipe

    Raises
    ------
    ValueError
        No recipe has this name. The message lists the names.
    """
    require_choice("name", name, tuple(RECIPES), optional=False)
    return RECIPES[name]
