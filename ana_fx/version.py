"""The version of the package that is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["installed_version"]


def installed_version() -> str:
    """What the installed package says, or "0+unknown" where only the source lies on the path."""
    try:
        return version("ana_fx")
    except PackageNotFoundError:
        return "0+unknown"
