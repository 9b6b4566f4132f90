"""Quotas: counted in the transaction, exact whoever asks at the same time."""

from __future__ import annotations

from threading import Thread

import pytest

from fakecloud.access.quotas import METRICS, STANDARD, Quotas
from fakecloud.errors import NoCapacity, NotFound, QuotaExceeded
from fakecloud.requests.load_balancers import LoadBalancers
from tests.fakes.small_cloud import PROJECT, spec, wish


def in_use(cloud, metric: str = "load_balancers", project: str = PROJECT) -> int:
    with cloud.database.read() as connection:
        return Quotas().find(connection, project, metric).in_use


@pytest.fixture
def limited(cloud):
    """A desk that sells two load balancers to each project."""
    desk = LoadBalancers(
        cloud.database, [cloud.pool], cloud.clock, quotas=Quotas({"load_balancers": 2})
    )
    cloud.desk = desk
    return cloud


def test_without_a_limit_it_is_counted_all_the_same(cloud):
    cloud.active("a")
    cloud.active("b")
    cloud.put("b", spec(81))
    assert in_use(cloud) == 2
    cloud.delete("a")
    assert in_use(cloud) == 2, "it is there until it is gone"
    cloud.settle()
    assert in_use(cloud) == len(cloud.living()) == 1


def test_the_limit_is_the_last_that_is_given(limited):
    limited.put("a")
    limited.put("b")
    with pytest.raises(
        QuotaExceeded, match="'default' has 2 of at most 2 load balancers"
    ) as refusal:
        limited.put("c")
    assert refusal.value.extra == {"metric": "load_balancers", "limit": 2, "in_use": 2}
    limited.put("b", spec(81))
    limited.delete("a")
    limited.settle()
    limited.put("c")
    assert in_use(limited) == 2


def test_a_create_that_fails_counts_nothing(cloud):
    for name in "abcdef":
        cloud.put(name)
    before = in_use(cloud)
    with pytest.raises(NoCapacity, match="no free address"):
        cloud.put("g")
    assert in_use(cloud) == before == len(cloud.living())


def test_projects_are_counted_apart(limited):
    limited.put("a")
    limited.put("b")
    limited.desk.put("shop", "a", wish())
    assert in_use(limited) == 2
    assert in_use(limited, project="shop") == 1


def test_many_at_once_get_exactly_as_many_as_there_are(limited):
    refused: list[str] = []

    def put(name: str) -> None:
        try:
            limited.put(name)
        except QuotaExceeded:
            refused.append(name)

    threads = [Thread(target=put, args=(f"lb-{n}",)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    assert in_use(limited) == len(limited.living()) == 2


def test_a_limit_of_ones_own_beats_the_standard(cloud):
    quotas = Quotas(STANDARD)
    with cloud.database.write() as connection:
        assert quotas.find(connection, PROJECT, "watches").limit == 20
        assert quotas.set_limit(connection, PROJECT, "watches", 1).limit == 1
        quotas.take(connection, PROJECT, "watches")
        with pytest.raises(QuotaExceeded):
            quotas.take(connection, PROJECT, "watches")
        assert quotas.set_limit(connection, PROJECT, "watches", None).limit == 20
        quotas.take(connection, PROJECT, "watches", 19)
        quotas.give_back(connection, PROJECT, "watches", 20)
        found = {one.metric: one for one in quotas.of_project(connection, PROJECT)}
    assert tuple(found) == METRICS
    assert found["watches"].in_use == 0
    assert found["tokens"].limit is None


def test_a_metric_that_does_not_exist_is_named(cloud):
    with cloud.database.read() as connection, pytest.raises(NotFound, match="no quota 'cars'"):
        Quotas().find(connection, PROJECT, "cars")
