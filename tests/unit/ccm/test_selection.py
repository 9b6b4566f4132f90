"""--controllers, in upstream's syntax."""

from __future__ import annotations

import pytest

from ccm import errors, selection

SERVICE = selection.SERVICE


@pytest.mark.parametrize(
    ("wanted", "runs"),
    [
        (("*",), True),
        ((SERVICE,), True),
        (("service",), True),
        (("*", f"-{SERVICE}"), False),
        (("*", "-service"), False),
        (("-service", "*"), False),
        (("cloud-node", "-service"), False),
        ((), False),
        (("service", "-service"), True),
        (("-service", "service"), False),
    ],
)
def test_s_01_name_alias_star_and_minus(wanted, runs):
    assert selection.is_enabled(SERVICE, wanted) is runs


@pytest.mark.parametrize(
    "wanted",
    [(), ("-service",), ("*", "-service", "-cloud-node", "-cloud-node-lifecycle", "-route")],
)
def test_nothing_to_run_is_refused(wanted):
    with pytest.raises(errors.ConfigError, match="--controllers"):
        selection.check(wanted)


@pytest.mark.parametrize("wanted", ["services", "-", "--service", "", "**"])
def test_p_17_unknown_controller_is_named_with_those_there_are(wanted):
    with pytest.raises(errors.ConfigError, match=r"--controllers.*service-lb-controller"):
        selection.check(("*", wanted))


def test_metrics_have_the_older_name():
    assert {selection.short(one) for one in selection.KNOWN} == set(selection.ALIASES)
