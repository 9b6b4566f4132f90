"""The controller manager as a whole against an API server, and a lease, that misbehave."""

from __future__ import annotations

import pytest

from tests.fakes import ccm_trouble


@pytest.mark.parametrize("fault", ccm_trouble.WATCH)
async def test_a_15_watch_in_trouble_misses_nothing_and_asks_little(fault):
    await ccm_trouble.WATCH[fault]()


@pytest.mark.parametrize("fault", ccm_trouble.LEASE_FAULTS)
async def test_p_10_lease_in_trouble_never_leaves_a_writer_without_it(fault):
    await ccm_trouble.LEASE_FAULTS[fault]()


def test_every_fault_of_the_comparison_is_here():
    assert (len(ccm_trouble.WATCH), len(ccm_trouble.LEASE_FAULTS)) == (12, 6)
