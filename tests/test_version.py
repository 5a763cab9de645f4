"""The version is that of the installed package."""

from importlib import metadata

import ana_fx
from ana_fx import version


def test_the_version_is_that_of_the_package():
    assert ana_fx.__version__ == metadata.version("ana_fx")
    assert "__version__" in dir(ana_fx)


def test_a_source_that_is_not_installed_has_a_version_too(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(version, "version", missing)
    assert ana_fx.__version__ == "0+unknown"
