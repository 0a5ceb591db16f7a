"""EventBridge: an event in an envelope is that event; where there is none, the envelope is the event."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from prooftrail import formats
from prooftrail.event import Target
from prooftrail.formats import Defaults, RawRecord
from tests.factories import native
from tests.leaves import LATEST
from tests.unit.formats.reading import ORIGIN, event_of
from tests.unit.formats.samples import SAMPLES, Sample

NOBODY = Defaults()


def envelope(detail: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "version": "0", "id": "7bf7", "detail-type": "Object Created", "source": "aws.s3", "account": "111122223333",
        "time": "2026-10-01T09:00:00Z", "region": "eu-central-1", "resources": ["arn:aws:s3:::b", "arn:x"],
        "detail": detail,
    } | fields  # fmt: skip


@pytest.mark.parametrize("sample", [sample for sample in SAMPLES if sample.format not in ("fhir", "otel")], ids=str)
def test_an_event_of_any_format_is_the_same_inside_an_envelope(sample: Sample) -> None:
    alone, inside = (
        event_of(document, headers=sample.headers) for document in (sample.document, envelope(sample.document))
    )
    assert inside.id == (alone.id if alone.id != ORIGIN else "eventbridge:7bf7")
    assert msgspec.structs.replace(inside, id=alone.id) == alone


def test_what_an_event_of_ours_lacks_the_envelope_says() -> None:
    bare = native(id=None, tenant=None, source=None, time=None)
    event = event_of(envelope(bare), NOBODY)
    assert (event.id, event.tenant, event.source) == ("eventbridge:7bf7", "111122223333", "aws.s3")
    assert (event.time.hour, event.action, event.site, event.metadata) == (9, "patient.read", None, None)


def test_an_event_without_a_time_has_the_same_one_however_often_the_envelope_is_delivered() -> None:
    sold = envelope({"functionality": "stock", "event_type": "sold"})
    first, again = (event_of(sold, headers={":time": f"2026-10-01T09:00:0{second}Z"}) for second in (3, 7))
    assert first == again
    assert first.time.isoformat() == "2026-10-01T09:00:00+00:00"


def test_an_id_that_is_none_of_eventbridge_names_nothing() -> None:
    entries = [{"resource": {"resourceType": "AuditEvent"}}] * 2
    bundle = envelope({"resourceType": "Bundle", "entry": entries}, id="7" * 5000)
    outcomes = formats.read(RawRecord(ORIGIN, msgspec.json.encode(bundle)), LATEST, NOBODY)
    assert [outcome.record.origin for outcome in outcomes] == [f"{ORIGIN}:0", f"{ORIGIN}:1"]


def test_a_tenant_that_is_named_goes_before_the_account() -> None:
    assert event_of(envelope(native(tenant=None)), headers={"prooftrail-tenant": "north"}).tenant == "north"
    assert event_of(envelope({}), headers={"prooftrail-tenant": "north"}).tenant == "north"


def test_without_an_event_the_envelope_is_it_and_nothing_of_it_is_lost() -> None:
    detail = {"bucket": {"name": "b"}, "actor": "no object of ours", "level": "loud", "id": 5}
    event = event_of(envelope(detail), NOBODY)
    assert (event.id, event.action, event.source, event.tenant) == (
        "eventbridge:7bf7", "Object Created", "aws.s3", "111122223333",
    )  # fmt: skip
    assert (event.site, event.target, event.time.hour) == ("eu-central-1", Target(id="arn:aws:s3:::b"), 9)
    assert event.metadata == {
        "version": "0", "id": "7bf7", "account": "111122223333", "resources": ["arn:aws:s3:::b", "arn:x"], "detail": detail,
    }  # fmt: skip


@pytest.mark.parametrize("resources", [[], [""], [5], "arn:x", None])
def test_without_a_resource_there_is_no_target(resources: Any) -> None:
    assert event_of(envelope({}, resources=resources)).target is None


def test_a_tenants_default_format_reads_the_detail() -> None:
    detail = {"action": "read", "timestamp": 1_790_000_000, "source": "s"}
    assert event_of(envelope(detail), Defaults("acme", {"acme": "java"})).source == "s"
