"""The package under test is the installed wheel; nothing here starts a server."""

import json
from pathlib import Path
from typing import Any

import pytest

UNIT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def key_vectors() -> dict[str, Any]:
    """The keys that the C++ tests check, too."""
    return json.loads((UNIT / "client" / "key_vectors.json").read_text())


@pytest.fixture(scope="session")
def checksum_vectors() -> dict[str, Any]:
    """The checksums that the C++ and CUDA tests check, too."""
    return json.loads((UNIT / "kernels" / "checksum_vectors.json").read_text())
