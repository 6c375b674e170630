"""Recipes: `python -m kdtoolkit.recipes.NAME`, flags plus library calls."""
