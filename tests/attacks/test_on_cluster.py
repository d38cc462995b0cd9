"""The table's attacks on the API server and the operator, each tried for real."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.attack import Attack
from tests.attacks.cluster import AttackedCluster, attacked_cluster
from tests.attacks.table import ON_CLUSTER


@pytest.fixture(scope="module")
def cluster() -> Iterator[AttackedCluster]:
    with attacked_cluster() as ground:
        yield ground


@pytest.mark.parametrize("attack", ON_CLUSTER, ids=lambda attack: attack.name)
def test_is_refused(cluster: AttackedCluster, attack: Attack[AttackedCluster]) -> None:
    assert attack.attempt(cluster)
