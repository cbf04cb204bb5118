"""Optional dependencies: an import that fails says which extra holds what is missing."""

from __future__ import annotations

import importlib.util

from ov_model.errors import OvError


class MissingExtra(OvError, ImportError):
    """A package that only an extra installs is not there."""


def require(extra: str, *modules: str) -> None:
    """Check that the modules of an extra can be found, without importing them.

    Raises:
        MissingExtra: names the modules that are missing and the command that installs them.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(f"{', '.join(missing)} not installed; run: pip install 'ov-lake[{extra}]'")
