"""What caches keep means the same, and equal parts of it are one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from ccm import interning
from ccm.kube import compacting, objects
from tests.unit.ccm import builders

words = st.text(max_size=5)
maps = st.none() | st.dictionaries(words, words, max_size=3)
metas = st.builds(
    objects.ObjectMeta,
    name=words,
    namespace=words,
    uid=words,
    resource_version=words,
    creation_timestamp=st.none() | words,
    deletion_timestamp=st.none() | words,
    labels=maps,
    annotations=st.none() | st.dictionaries(words, words, min_size=1, max_size=3),
    finalizers=st.none() | st.lists(words, max_size=2).map(tuple),
)
conditions = st.builds(objects.Condition, words, words, words, words, st.none() | words)
ports = st.lists(st.builds(objects.ServicePort, st.integers(0, 9), words), max_size=3).map(tuple)
ingress = st.builds(
    objects.Ingress,
    words,
    words,
    st.none() | words,
    st.none() | st.just((objects.PortStatus(80, "TCP", None),)),
)
services = st.builds(
    objects.Service,
    metas,
    st.builds(objects.ServiceSpec, ports=st.none() | ports),
    st.builds(
        objects.ServiceStatus,
        st.builds(
            objects.LoadBalancerStatus,
            st.none() | st.lists(ingress, min_size=1, max_size=2).map(tuple),
        ),
        st.none() | st.lists(conditions, max_size=3).map(tuple),
    ),
)
nodes = st.builds(
    objects.Node,
    metas,
    st.builds(objects.NodeSpec, words),
    st.builds(
        objects.NodeStatus,
        st.none() | st.lists(st.builds(objects.NodeAddress, words, words), max_size=2).map(tuple),
        st.none() | st.lists(st.builds(objects.NodeCondition, words, words), max_size=2).map(tuple),
    ),
)


@given(st.lists(services, max_size=4))
def test_kept_services_equal_what_was_read(found):
    pool = interning.Pool()
    assert [compacting.service(pool, one) for one in found] == found


@given(st.lists(nodes, max_size=4))
def test_kept_nodes_equal_what_was_read(found):
    pool = interning.Pool()
    assert [compacting.node(pool, one) for one in found] == found


def test_kubectls_copy_of_the_object_is_not_kept():
    item = builders.service(annotations={compacting.LAST_APPLIED: "{" * 2000, "a": "b"})
    assert compacting.service(interning.Pool(), item).annotations == {"a": "b"}


def test_services_that_differ_in_their_names_share_the_rest():
    pool = interning.Pool()
    one, other = (
        compacting.service(pool, structs.replace(builders.service(uid=uid), status=served()))
        for uid in ("u-1", "u-2")
    )
    assert one.spec is other.spec
    assert one.status.conditions is other.status.conditions


def test_a_slice_keeps_of_its_labels_whose_it_is():
    labels = {objects.SERVICE_NAME: "web", "other": "x"}
    meta = objects.ObjectMeta("web-1", "shop", labels=labels, annotations={"trigger": "now"})
    end = objects.Endpoint(("10.0.0.1",), objects.EndpointConditions(ready=True), "node-1")
    found = objects.EndpointSlice(meta, "IPv4", (end,), (objects.EndpointPort("p", "TCP", 80),))
    kept = compacting.endpoint_slice(interning.Pool(), found)
    assert kept.service_key == "shop/web"
    assert kept.metadata.labels == {objects.SERVICE_NAME: "web"}
    assert kept.metadata.annotations is None
    assert (kept.endpoints, kept.ports) == (found.endpoints, found.ports)


def served():
    return objects.ServiceStatus(
        conditions=(objects.Condition("LoadBalancerServing", "True", "Serving", "", "now"),)
    )
