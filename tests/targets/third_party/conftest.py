"""Packages of third parties, installed as far as Python can tell."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def install(tmp_path, monkeypatch) -> Callable[[str, str], None]:
    """Enter a target, "module:object", as the entry point of a package."""

    def enter(name: str, reference: str) -> None:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[ana_fx.targets]\n{name} = {reference}\n")
        monkeypatch.syspath_prepend(tmp_path)

    return enter
