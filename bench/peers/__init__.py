"""The peers, each run in an environment of its own (`pyproject.toml` here), by `run`.

There this package is `peers` and headrace is not installed: hence the relative imports.
"""
