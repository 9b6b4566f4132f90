"""The one document: defaults, and the way from JSON to the database and back."""

from __future__ import annotations

import msgspec
import pytest

from fakecloud import model
from fakecloud.api import schemas
from fakecloud.domain import documents
from fakecloud.requests.wishes import Outcome, Wish
from tests.fakes.small_cloud import PROJECT, spec

SMALLEST = {
    "spec": {
        "listeners": [{"name": "web", "protocol": "tcp", "port": 80, "target_group": "web"}],
        "target_groups": [{"name": "web", "targets": [{"ip": "127.0.9.1", "port": 9000}]}],
    }
}


def read(document: object) -> Wish:
    body = schemas.PutLoadBalancer.model_validate(document)
    return Wish(labels=body.labels, annotations=body.annotations, spec=schemas.to_model(body))


@pytest.mark.parametrize(
    "name",
    [
        "AddressRequest",
        "Tls",
        "Route",
        "Listener",
        "HealthCheck",
        "Affinity",
        "Target",
        "TargetGroup",
        "Spec",
    ],
)
def test_wire_models_have_the_fields_and_defaults_of_the_model(name):
    """What the customer leaves out means the same on the wire, in the store and in the renderer."""
    inside = {field.name: field for field in msgspec.structs.fields(getattr(model, name))}
    wire = getattr(schemas, name).model_fields
    assert set(wire) == set(inside)
    for field, of_wire in wire.items():
        assert of_wire.is_required() == inside[field].required, field
        if not of_wire.is_required():
            default = of_wire.get_default(call_default_factory=True)
            plain = default.model_dump() if isinstance(default, schemas.BaseModel) else default
            if isinstance(plain, list):
                plain = [x.model_dump() if hasattr(x, "model_dump") else x for x in plain]
            of_model = msgspec.json.decode(msgspec.json.encode(inside[field].default))
            assert plain == of_model, field


def test_the_smallest_document_means_the_defaults():
    listener = model.Listener(name="web", protocol="tcp", port=80, target_group="web")
    group = model.TargetGroup(name="web", targets=(model.Target(ip="127.0.9.1", port=9000),))
    assert read(SMALLEST).spec == model.Spec(listeners=(listener,), target_groups=(group,))


def test_what_is_read_can_be_put_back_and_changes_nothing(cloud):
    cloud.desk.put(
        PROJECT, "web", read(SMALLEST | {"labels": {"a": "b"}, "annotations": {"c": "d"}})
    )
    cloud.settle()
    shown = msgspec.json.decode(msgspec.json.encode(documents.load_balancer(cloud.get("web"))))
    events, operations = len(cloud.events()), len(cloud.operations())
    lb, outcome = cloud.desk.put(PROJECT, "web", read(shown))
    assert outcome is Outcome.UNCHANGED
    assert (len(cloud.events()), len(cloud.operations())) == (events, operations)
    assert lb.generation == 1


def test_another_spelling_of_an_address_is_no_change(cloud):
    loose = {**SMALLEST["spec"], "source_ranges": ["10.1.2.3/8", "2001:DB8::/32"]}
    strict = {**SMALLEST["spec"], "source_ranges": ["10.0.0.0/8", "2001:db8::/32"]}
    assert read({"spec": loose}) == read({"spec": strict})


def test_the_document_has_exactly_the_promised_status(cloud):
    shown = documents.load_balancer(cloud.active("web"))
    assert set(shown) == {"name", "labels", "annotations", "spec", "status"}
    assert set(shown["status"]) == set(schemas.Status.model_fields)
    schemas.LoadBalancer.model_validate_json(msgspec.json.encode(shown))
    assert shown["status"]["created_at"] == "2026-11-23T10:00:00.000000Z"
    assert documents.etag(cloud.get("web")).strip('"').split(".")[0] == "1"


def test_a_stored_spec_of_an_older_version_takes_the_defaults():
    stored = msgspec.json.decode(msgspec.json.encode(spec()))
    del stored["source_ranges"]
    stored["target_groups"][0]["unheard_of"] = 1
    assert msgspec.convert(stored, model.Spec) == spec()
