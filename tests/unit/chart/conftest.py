from pathlib import Path

import pytest

from tests.apiserver.fixtures import apiserver as apiserver
from tests.unit.chart.helm import Helm, Rendered


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm without a cluster."""
    directory: Path = tmp_path_factory.mktemp("helm")
    return Helm(directory=directory)


@pytest.fixture(scope="session")
def chart(helm: Helm) -> Rendered:
    """The chart rendered with its default values."""
    return helm.render()
