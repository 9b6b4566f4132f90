"""The provisioner on a real database and a data plane that misbehaves on demand."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fakecloud import model
from fakecloud.billing.events import Kind
from fakecloud.domain import lifecycle
from fakecloud.errors import NoCapacity, Permanent, Transient
from fakecloud.model import OperationStatus, State
from fakecloud.store import billing_events, load_balancers
from tests.fakes.small_cloud import LEASE_S, PROJECT, SmallCloud, spec

BUSY = Transient("bind_failed", "127.77.0.1:8080: another process has the port")
REFUSED = Permanent("config_invalid", "haproxy refused the configuration")


def ends(cloud: SmallCloud) -> list[tuple[str, int, str]]:
    found = sorted(cloud.operations(), key=lambda o: (o.target_generation, o.type))
    return [(o.type, o.target_generation, o.status.value) for o in found]


class Pausing:
    """Runs `meanwhile` once, in the middle of the next call of the data plane."""

    def __init__(self, cloud: SmallCloud, meanwhile) -> None:
        self._cloud, self._meanwhile = cloud, meanwhile
        self._apply = cloud.dataplane.apply
        cloud.dataplane.apply = self  # type: ignore[method-assign]

    def __call__(self, desired: model.Desired) -> None:
        self._cloud.dataplane.apply = self._apply  # type: ignore[method-assign]
        self._meanwhile()
        self._apply(desired)


def test_nothing_to_do_is_said(cloud):
    assert cloud.provisioner.step() is False


def test_create_becomes_active_with_traffic(cloud):
    cloud.put("web", spec(8080, 9001))
    assert cloud.get("web").state is State.PENDING
    assert cloud.provisioner.step() is True
    lb = cloud.get("web")
    assert (lb.state, lb.observed_generation, lb.due_at) == (State.ACTIVE, 1, None)
    assert lb.operating_state is model.OperatingState.ONLINE
    assert cloud.host.reach(lb.addresses[0].ip, 8080) == "127.0.9.1:9001"
    assert cloud.history("web") == ["PENDING", "PROVISIONING", "ACTIVE"]
    assert ends(cloud) == [("create", 1, "SUCCEEDED")]
    assert cloud.provisioner.step() is False


def test_update_of_an_active_one_keeps_its_address(cloud):
    before = cloud.active("web", spec(8080, 9001))
    cloud.put("web", spec(8080, 9002))
    assert cloud.get("web").state is State.UPDATING
    cloud.settle()
    lb = cloud.get("web")
    assert (lb.state, lb.generation, lb.observed_generation) == (State.ACTIVE, 2, 2)
    assert lb.addresses == before.addresses
    assert cloud.host.reach(lb.addresses[0].ip, 8080) == "127.0.9.1:9002"
    assert ends(cloud) == [("create", 1, "SUCCEEDED"), ("update", 2, "SUCCEEDED")]


def test_update_while_provisioning_is_taken_up_after_the_older_generation(cloud):
    """T3': the older generation is observed, then the newer one follows at once."""
    cloud.put("web", spec(8080, 9001))
    Pausing(cloud, lambda: (cloud.put("web", spec(8080, 9002)), cloud.put("web", spec(8081))))
    cloud.provisioner.step()
    lb = cloud.get("web")
    assert (lb.state, lb.generation, lb.observed_generation) == (State.PROVISIONING, 3, 1)
    assert lb.due_at == cloud.clock.now()
    cloud.settle()
    lb = cloud.get("web")
    assert (lb.state, lb.observed_generation) == (State.ACTIVE, 3)
    assert ends(cloud) == [
        ("create", 1, "SUCCEEDED"),
        ("update", 2, "SUPERSEDED"),
        ("update", 3, "SUCCEEDED"),
    ]
    assert len(cloud.billed()) == 1


def test_an_older_operation_is_superseded_when_a_middle_generation_is_reached(cloud):
    cloud.put("web", spec(8080))
    cloud.put("web", spec(8081))
    Pausing(cloud, lambda: cloud.put("web", spec(8082)))
    cloud.provisioner.step()
    assert ends(cloud) == [
        ("create", 1, "SUPERSEDED"),
        ("update", 2, "SUCCEEDED"),
        ("update", 3, "RUNNING"),
    ]


def test_transient_failures_back_off_and_end_in_error_without_charge(cloud):
    cloud.put("web")
    cloud.dataplane.fail_next = [BUSY] * lifecycle.MAX_ATTEMPTS
    pauses = []
    for attempt in range(1, lifecycle.MAX_ATTEMPTS):
        assert cloud.provisioner.step() is True
        lb = cloud.get("web")
        assert (lb.state, lb.attempts, lb.last_error.code) == (State.PENDING, attempt, BUSY.code)
        pauses.append((lb.due_at - cloud.clock.now()).total_seconds())
        assert cloud.provisioner.step() is False
        cloud.clock.advance(pauses[-1])
    assert cloud.provisioner.step() is True
    lb = cloud.get("web")
    assert lb.state is State.ERROR
    assert lb.due_at == cloud.clock.now() + timedelta(seconds=lifecycle.ERROR_RETRY_S)
    assert all(later > sooner for sooner, later in zip(pauses, pauses[2:], strict=False))
    assert pauses[-1] <= 90
    assert ends(cloud) == [("create", 1, "FAILED")]
    assert cloud.operations()[0].error.code == BUSY.code
    assert cloud.billed() == []


def test_an_unexpected_failure_backs_off_like_any_other(cloud):
    """A full disk, a bug: the row must not be tried for ever without a word."""
    cloud.put("web")
    cloud.dataplane.fail_next = [OSError(28, "No space left on device")]
    cloud.provisioner.step()
    lb = cloud.get("web")
    assert (lb.state, lb.attempts, lb.last_error.code) == (State.PENDING, 1, "internal")
    assert "No space" not in lb.last_error.message  # the log has it; customers needn't


def test_the_deadline_ends_attempts_too(cloud):
    cloud.put("web")
    cloud.clock.advance(lifecycle.DEADLINE_S)
    cloud.dataplane.fail_next = [BUSY]
    cloud.provisioner.step()
    assert cloud.get("web").state is State.ERROR


def test_a_success_after_failures_forgets_them(cloud):
    cloud.put("web")
    cloud.dataplane.fail_next = [BUSY, BUSY]
    cloud.provisioner.step()
    (operation,) = cloud.operations()
    assert (operation.status, operation.error.message) == (OperationStatus.RUNNING, BUSY.message)
    for _ in range(2):
        cloud.clock.advance(10)
        cloud.provisioner.step()
    lb = cloud.get("web")
    assert (lb.state, lb.attempts, lb.last_error) == (State.ACTIVE, 0, None)
    (operation,) = cloud.operations()
    assert (operation.status, operation.error) == (OperationStatus.SUCCEEDED, None)
    assert [c.status for c in lb.conditions] == ["True"]


def test_a_permanent_failure_of_an_update_leaves_the_last_good_one_serving(cloud):
    """T8: ERROR, the address answers as before, and the bill goes on."""
    ip = cloud.active("web", spec(8080, 9001)).addresses[0].ip
    cloud.put("web", spec(8080, 9002))
    cloud.dataplane.fail_next = [REFUSED]
    cloud.provisioner.step()
    lb = cloud.get("web")
    assert (lb.state, lb.generation, lb.observed_generation) == (State.ERROR, 2, 1)
    assert lb.last_error.message == REFUSED.message
    assert [(c.type, c.status, c.reason) for c in lb.conditions] == [
        ("DataPlaneReady", "False", "ConfigInvalid")
    ]
    assert cloud.host.reach(ip, 8080) == "127.0.9.1:9001"
    assert len(cloud.billed()) == 1


@pytest.mark.parametrize("was_active", [False, True])
def test_error_is_retried_and_heals(cloud, was_active):
    """T9 by itself, through the state that its past asks for."""
    if was_active:
        cloud.active("web")
    cloud.put("web", spec(8081))
    cloud.dataplane.fail_next = [REFUSED]
    cloud.provisioner.step()
    assert cloud.provisioner.step() is False
    cloud.clock.advance(lifecycle.ERROR_RETRY_S)
    assert cloud.provisioner.step() is True
    lb = cloud.get("web")
    assert (lb.state, lb.observed_generation, lb.last_error) == (State.ACTIVE, lb.generation, None)
    middle = "UPDATING" if was_active else "PROVISIONING"
    assert cloud.history("web")[-3:] == ["ERROR", middle, "ACTIVE"]


@pytest.mark.parametrize("was_active", [False, True])
def test_error_retried_in_vain_gets_its_attempts_again(cloud, was_active):
    if was_active:
        cloud.active("web")
    cloud.put("web", spec(8081))
    cloud.dataplane.fail_next = [REFUSED, BUSY]
    cloud.provisioner.step()
    cloud.clock.advance(lifecycle.ERROR_RETRY_S)
    cloud.provisioner.step()
    lb = cloud.get("web")
    assert (lb.state, lb.attempts) == (State.UPDATING if was_active else State.PENDING, 1)


def test_a_new_wish_in_error_starts_again_with_all_attempts(cloud):
    cloud.put("web", spec(8080))
    cloud.dataplane.fail_next = [REFUSED]
    cloud.provisioner.step()
    cloud.put("web", spec(8081))
    lb = cloud.get("web")
    assert (lb.state, lb.attempts, lb.due_at) == (State.PENDING, 0, cloud.clock.now())
    cloud.settle()
    assert cloud.get("web").state is State.ACTIVE


def test_a_failure_of_an_older_generation_does_not_count_against_the_new_one(cloud):
    cloud.put("web", spec(8080))
    cloud.dataplane.fail_next = [REFUSED]
    Pausing(cloud, lambda: cloud.put("web", spec(8081)))
    cloud.provisioner.step()
    lb = cloud.get("web")
    assert (lb.state, lb.attempts, lb.due_at) == (State.PROVISIONING, 0, cloud.clock.now())
    cloud.settle()
    assert ends(cloud) == [("create", 1, "SUPERSEDED"), ("update", 2, "SUCCEEDED")]


def into_pending(cloud):
    cloud.put("web")


def into_provisioning(cloud):
    cloud.put("web")
    Pausing(cloud, lambda: cloud.put("web", spec(8081)))
    cloud.provisioner.step()


def into_active(cloud):
    cloud.active("web")


def into_updating(cloud):
    cloud.active("web")
    cloud.put("web", spec(8081))


def into_error(cloud):
    cloud.put("web")
    cloud.dataplane.fail_next = [REFUSED]
    cloud.provisioner.step()


@pytest.mark.parametrize(
    ("arrive", "state"),
    [
        (into_pending, State.PENDING),
        (into_provisioning, State.PROVISIONING),
        (into_active, State.ACTIVE),
        (into_updating, State.UPDATING),
        (into_error, State.ERROR),
    ],
    ids=lambda value: value.value if isinstance(value, State) else "",
)
def test_delete_works_from_every_state_and_leaves_nothing(cloud, arrive, state):
    arrive(cloud)
    lb = cloud.get("web")
    assert lb.state is state
    cloud.delete("web")
    running = [o for o in cloud.operations() if o.status is OperationStatus.RUNNING]
    assert [o.type for o in running] == ["delete"]
    cloud.settle()
    assert cloud.living() == []
    assert cloud.host.desired == {}
    assert cloud.host.running == {}
    assert cloud.billed() == []
    assert cloud.history("web")[-2:] == ["DELETING", "DELETED"]
    assert not [o for o in cloud.operations() if o.status is OperationStatus.RUNNING]
    assert cloud.probes.watched == frozenset()


def test_delete_in_the_middle_of_work_wins(cloud):
    cloud.put("web")
    Pausing(cloud, lambda: cloud.delete("web"))
    cloud.provisioner.step()
    assert cloud.get("web").state is State.DELETING
    cloud.settle()
    assert (cloud.living(), cloud.host.running) == ([], {})
    assert ends(cloud) == [("create", 1, "CANCELLED"), ("delete", 1, "SUCCEEDED")]
    assert cloud.billed() == []


def test_delete_is_retried_for_ever(cloud):
    cloud.active("web")
    cloud.delete("web")
    real, failures = cloud.dataplane.remove, iter([BUSY] * 20)

    def remove(lb_id: str, epoch: int) -> None:
        failure = next(failures, None)
        if failure is not None:
            raise failure
        real(lb_id, epoch)

    cloud.dataplane.remove = remove
    for turn in range(20):
        assert cloud.provisioner.step() is True, turn
        assert cloud.get("web").state is State.DELETING
        cloud.clock.advance(90)
    assert cloud.provisioner.step() is True
    assert cloud.living() == []


def test_the_address_of_a_deleted_one_rests_before_it_is_given_again(cloud):
    first = cloud.active("a").addresses[0].ip
    cloud.delete("a")
    cloud.settle()
    others = {cloud.active(f"b{n}").addresses[0].ip for n in range(5)}
    assert first not in others
    with pytest.raises(NoCapacity):
        cloud.put("one-too-many")
    cloud.clock.advance(61)
    assert cloud.active("late").addresses[0].ip == first


def test_a_worker_that_died_is_succeeded_when_its_lease_ends(cloud):
    """Its row is due and leased; nobody else's row has to be due for that to be noticed."""
    cloud.put("web")
    Pausing(cloud, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cloud.provisioner.step()
    other = cloud.worker("host-2")
    assert other.step() is False
    cloud.clock.advance(LEASE_S + 0.001)
    assert other.step() is True
    lb = cloud.get("web")
    assert (lb.state, lb.lease_epoch) == (State.ACTIVE, 2)


@pytest.mark.parametrize("where", ["data plane", "store"])
def test_a_zombie_writes_nothing(cloud, where):
    """It slept past its lease; another worker applied a newer wish meanwhile."""
    cloud.put("web", spec(8080))
    seen = []

    def meanwhile() -> None:
        cloud.clock.advance(LEASE_S + 1)
        cloud.put("web", spec(8081))
        assert cloud.worker("host-2").step() is True
        seen.append(len(cloud.events()))

    if where == "data plane":
        Pausing(cloud, meanwhile)
    else:
        real = cloud.dataplane.apply

        def apply(desired: model.Desired) -> None:
            cloud.dataplane.apply = real
            real(desired)
            meanwhile()

        cloud.dataplane.apply = apply
    cloud.provisioner.step()
    after = cloud.get("web")
    assert (after.state, after.observed_generation, after.lease_epoch) == (State.ACTIVE, 2, 2)
    assert [len(cloud.events())] == seen
    assert cloud.host.reach(after.addresses[0].ip, 8081) == "127.0.9.1:9000"
    assert cloud.host.reach(after.addresses[0].ip, 8080) == "refused"


def test_a_restart_frees_the_leases_of_the_last_life_at_once(cloud):
    cloud.put("web")
    Pausing(cloud, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cloud.provisioner.step()
    cloud.restart()
    assert cloud.provisioner.step() is True
    assert cloud.get("web").state is State.ACTIVE


def test_a_restart_leaves_what_runs_alone(cloud):
    cloud.active("web")
    events = len(cloud.events())
    cloud.restart()
    assert cloud.settle() == 0
    assert len(cloud.events()) == events
    assert cloud.dataplane.calls == [("adopt", frozenset({cloud.get("web").id}))]


@pytest.mark.parametrize("state", [State.ACTIVE, State.UPDATING, State.ERROR])
def test_a_lost_data_plane_is_made_again_with_the_same_address(cloud, state):
    """T15: the container went, its state directory with it."""
    before = cloud.active("web", spec(8080))
    if state is not State.ACTIVE:
        cloud.put("web", spec(8080, 9002))
    if state is State.ERROR:
        cloud.dataplane.fail_next = [REFUSED]
        cloud.provisioner.step()
    assert cloud.get("web").state is state
    cloud.host.desired.clear()
    cloud.host.running.clear()
    cloud.host.epochs.clear()
    cloud.restart()
    assert cloud.get("web").state is State.UPDATING
    cloud.settle()
    after = cloud.get("web")
    assert (after.state, after.addresses) == (State.ACTIVE, before.addresses)
    assert cloud.host.reach(after.addresses[0].ip, 8080) != "refused"
    assert len(cloud.billed()) == 1


def test_recover_reads_the_rows_anew(cloud):
    """What it is given was read before; a DELETE that came between must not be undone."""
    lb = cloud.active("web")
    cloud.delete("web")
    cloud.provisioner.recover([lb])
    assert cloud.get("web").state is State.DELETING


def test_a_wall_clock_set_back_does_not_stop_work(cloud):
    cloud.put("web")
    cloud.clock.step_wall(-3600)
    cloud.put("late", spec(8081))
    cloud.settle()
    assert cloud.get("late").state is State.ACTIVE


def test_relabelling_splits_the_bill_and_moves_nothing_else(cloud):
    before = cloud.active("web", namespace="a")
    cloud.clock.advance(60)
    cloud.put("web", namespace="b")
    after = cloud.get("web")
    assert (after.state, after.generation) == (State.ACTIVE, before.generation)
    assert after.resource_version > before.resource_version
    assert cloud.settle() == 0
    assert [one.terms.labels for one in cloud.billed()] == [{"namespace": "b"}]


def test_relabelling_with_a_new_spec_splits_the_bill_too(cloud):
    cloud.active("web", namespace="a")
    cloud.clock.advance(60)
    cloud.put("web", spec(8081), namespace="b")
    assert [one.terms.labels for one in cloud.billed()] == [{"namespace": "b"}]


def test_another_type_splits_the_bill(cloud):
    cloud.active("web")
    cloud.clock.advance(60)
    cloud.put("web", spec(type="lb-m"))
    with cloud.database.read() as connection:
        (history,) = billing_events.open(connection).values()
    assert [(one.kind, one.terms.type) for one in history] == [
        (Kind.CREATED, "lb-s"),
        (Kind.ACTIVATED, "lb-s"),
        (Kind.CHANGED, "lb-m"),
    ]


def test_what_a_reader_of_all_events_knows_is_what_is_there(cloud):
    cloud.active("a")
    cloud.active("b", spec(8080, 9001))
    cloud.put("b", spec(8080, 9002))
    cloud.delete("a")
    cloud.settle()
    assert cloud.replayed() == cloud.present()


def test_every_row_round_trips(cloud):
    lb = cloud.active("web", spec(8080, 9001, 9002), team="a")
    with cloud.database.read() as connection:
        stored = load_balancers.find(connection, PROJECT, lb.id)
    assert stored == lb
