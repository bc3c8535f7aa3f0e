"""What the tests of every engine start from; a conftest imports the fixtures that it wants."""

from __future__ import annotations

import os
import pathlib

import pytest


@pytest.fixture(scope="session")
def binaries() -> pathlib.Path:
    folder = os.environ.get("REPRISE_BIN")
    assert folder, "set REPRISE_BIN to the folder with the executable `reprise`; ./dev test does"
    return pathlib.Path(folder)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="session")
def model(folder: pathlib.Path) -> pathlib.Path:
    from demo.vllm_model import make_model

    return make_model(folder / "one" / "tiny-llama")


def skip_all(items: list[pytest.Item], reason: str | None) -> None:
    """Marks them all to be skipped, where there is a reason."""
    for item in items if reason else []:
        item.add_marker(pytest.mark.skip(reason=reason))


def last_goes_last(items: list[pytest.Item]) -> None:
    """The tests that are marked `last`, which take from the others what they share, go last."""
    items.sort(key=lambda item: "last" in item.keywords)


def know_last(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "last: kills what others share")
