"""Events over HTTP: ``POST /events`` (one) and ``POST /events/batch``, answered after the commit, with receipts.

A function of its own that shares the code of ingest: a person or a service waits for the answer, so it gives up long before
API Gateway does, needs little memory, reads no queue, and is throttled apart from the brokers' batches.

What cannot be an event is told to the caller and not put into quarantine: the caller has it, and learns why at once. Two
things go there all the same. A conflict, because it is an event, and one that contradicts what is stored under its
identity: such evidence must not depend on whether a caller reads answers. And what we refuse by a fault of ours, when a
format fails on it or nobody but the database minds it, because it may be an event. (A tenant's rules may want more there.)

An event without an id gets one: a UUIDv7, or, with an ``Idempotency-Key``, one that derives from the key and the event's
place in the request, so that a retry is a duplicate (draft-ietf-httpapi-idempotency-key-header). Keys are compared within
what else identifies an event, its tenant and its source; not within the API key, for a retry may come after that was
changed. They are good for ever. An event that has an id needs no other key, and `Idempotency-Key` says nothing about it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

import msgspec
import psycopg
from aws_lambda_powertools.utilities.typing import LambdaContext

import event_ids
import writer
from http_answers import answer, problem_answer
from http_request import Request
from prooftrail import api_keys
from prooftrail.api_keys import ALL_TENANTS, Holder
from prooftrail.errors import RetryableError
from prooftrail.event import Event
from prooftrail.formats import Accepted, RawRecord, Rejected
from prooftrail.problem import Problem, errors, shortened, unauthorized
from prooftrail.store import Receipt
from prooftrail.telemetry import MetricUnit, logger, metrics

PATIENCE = 10.0  # seconds to wait for the database: somebody waits for the answer, and API Gateway gives up after 29
RESERVE = 3.0  # seconds of the function's time kept back for answering
MOST_EVENTS = 1_000  # of one request: one transaction, and an answer below Lambda's 6 MB whatever the ids are

_NO_TEXT = {"invalid-json", "not-utf8"}  # the reasons for which a body is not even JSON
_OUR_FAULTS = {writer.OUR_FAULT, "refused-by-database"}
_OURS = "it was refused by a fault of ours, and is kept in quarantine until that is mended"


class _Item(msgspec.Struct, frozen=True):
    """An event of a request, or what should have been one: its number there, and the id that it gets if it has none."""

    number: int
    id: str
    outcome: Accepted | Rejected


_Results: TypeAlias = list[tuple[_Item, Receipt | None]]  # None: it was never handed to the store


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one API Gateway request; 2xx means that what is said to be stored is durable."""
    deadline = time.monotonic() + min(PATIENCE, context.get_remaining_time_in_millis() / 1000 - RESERVE)
    try:
        return _routed(Request.of(event), deadline)
    except Problem as problem:
        return problem_answer(problem)
    except (RetryableError, *writer.PASSING) as error:
        logger.error("request must come again", extra={"cause": str(error)})
        writer.writer().discard()
        return problem_answer(_come_again())
    except Exception:  # noqa: BLE001  # whatever it is, the caller gets an answer that says what to do
        logger.exception("unexpected error")  # the log has the trace, the caller must not
        writer.writer().discard()
        message = "something went wrong on our side: the log of this request says what"
        return problem_answer(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, message))


def _routed(request: Request, deadline: float) -> dict[str, Any]:
    if (request.method, request.path) == ("POST", "/events"):
        request.check_one()
        return _one(request, _holder(request, deadline), deadline)
    if (request.method, request.path) == ("POST", "/events/batch"):
        request.check_batch()
        return _batch(request, _holder(request, deadline), deadline)
    raise Problem(HTTPStatus.NOT_FOUND, "there is no such route: try POST /events or POST /events/batch")


def _holder(request: Request, deadline: float) -> Holder:
    """Whose key it is. Raises a `Problem` where it is not good, or does not write."""
    key = api_keys.presented(request.headers)
    holder = api_keys.holder_of(writer.writer().connection(deadline), key) if key else None
    if holder is None:
        raise unauthorized()
    if holder.role != "writer":
        message = (
            f"expected a key with the role writer (`prooftrail key create --role writer`), got one that is {holder.role}"
        )
        raise Problem(HTTPStatus.FORBIDDEN, message)
    return holder


def _one(request: Request, holder: Holder, deadline: float) -> dict[str, Any]:
    """``POST /events``: 201 with the receipt where it was stored, 200 where it was known, else a problem."""
    items = _read(request, holder, [(0, request.body)])
    if len(items) > 1:
        message = f"expected one event, got {len(items)}: POST them to /events/batch"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, message, errors=errors({"body": message}))
    ((item, receipt),) = _append(items, deadline)
    if isinstance(item.outcome, Rejected):
        raise _refused(item.outcome)
    assert receipt is not None
    if receipt.refusal is not None:
        raise _quarantined(item, receipt.refusal)
    document = _document(item, receipt)
    if receipt.status == "duplicate":
        return answer(HTTPStatus.OK, document)
    return answer(HTTPStatus.CREATED, document, {"Location": _location(item.outcome.event, holder)})


def _location(event: Event, holder: Holder) -> str:
    """Where the event is read, relative to the request's URL; with what chooses it from others that have its id."""
    chosen = {"source": event.source}
    if holder.tenant == ALL_TENANTS:
        chosen["tenant"] = event.tenant
    return f"events/{quote(event.id, safe='')}?{urlencode(chosen, safe='', quote_via=quote)}"


def _batch(request: Request, holder: Holder, deadline: float) -> dict[str, Any]:
    """``POST /events/batch``: 200 where all of them are stored or known, else 207; a result for each, in their order."""
    items = _read(request, holder, _bodies(request))
    results = _append(items, deadline)
    documents = [{"item": item.number} | _document(item, receipt) for item, receipt in results]
    counts = Counter(document["status"] for document in documents)
    summary = {status: counts[status] for status in ("stored", "duplicate", "conflict", "rejected")}
    well = not counts["conflict"] and not counts["rejected"]
    return answer(HTTPStatus.OK if well else HTTPStatus.MULTI_STATUS, summary | {"results": documents})


def _bodies(request: Request) -> list[tuple[int, bytes]]:
    """Each item with its number: the lines that are not blank, the elements of the array, or a document that is none."""
    if request.is_lines:
        bodies = [(number, line) for number, line in enumerate(request.body.split(b"\n")) if line.strip(b" \t\r")]
    else:
        bodies = list(enumerate(_elements(request.body)))
    if not bodies:
        raise _unusable(HTTPStatus.UNPROCESSABLE_ENTITY, "expected at least one event, got none")
    if len(bodies) > MOST_EVENTS:
        raise _too_many(len(bodies))
    return bodies


def _elements(body: bytes) -> list[bytes]:
    try:
        return [bytes(element) for element in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except msgspec.ValidationError:
        return [body]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unusable(HTTPStatus.BAD_REQUEST, f"expected a JSON array, or JSON texts as NDJSON: {error}") from None


def _read(request: Request, holder: Holder, bodies: Sequence[tuple[int, bytes]]) -> list[_Item]:
    """What the bodies hold: one item each, or several where one is a container of its format."""
    headers = _headers(request, holder)
    key = request.idempotency_key()
    if key is None:  # a retry comes at another time, and would contradict itself
        headers[":received"] = datetime.now(UTC).isoformat()
    items: list[_Item] = []
    for place, (number, body) in enumerate(bodies):
        id = event_ids.new() if key is None else event_ids.derived(key, place)  # blank lines change no id
        items += _read_one(number, RawRecord(id, body, headers), holder)
        if len(items) > MOST_EVENTS:
            raise _too_many(len(items))
    return items


def _headers(request: Request, holder: Holder) -> dict[str, str]:
    """The headers of each record: those of the request, but an item of a batch has the type of an item."""
    headers = request.headers_of_records(None if holder.tenant == ALL_TENANTS else holder.tenant)
    if request.is_lines:
        return headers | {"content-type": "application/json"}
    if request.media_type == "application/cloudevents-batch+json":
        return headers | {"content-type": "application/cloudevents+json"}
    return headers


def _read_one(number: int, record: RawRecord, holder: Holder) -> Iterator[_Item]:
    for outcome in writer.outcomes(record, writer.latest_time()):
        if isinstance(outcome, Rejected):
            yield _Item(number, outcome.record.origin, outcome)
        elif holder.tenant not in (ALL_TENANTS, outcome.event.tenant):
            message = f"this key writes for {holder.tenant} only: leave `tenant` out or name that one"
            yield _Item(
                number, outcome.record.origin, Rejected(outcome.record, "forbidden-tenant", message, {"tenant": message})
            )
        else:
            yield _Item(number, outcome.record.origin, Accepted(_as_evidence(outcome.record), outcome.event))


def _as_evidence(record: RawRecord) -> RawRecord:
    """The record under the name that it would have in quarantine: the same sent again, whenever, is there already."""
    headers = sorted(item for item in record.headers.items() if item[0] != ":received")
    content = json.dumps(headers).encode() + record.body
    return msgspec.structs.replace(record, origin=f"http:{hashlib.sha256(content).hexdigest()}")


def _append(items: Sequence[_Item], deadline: float) -> _Results:
    """Store what can be stored, in one transaction, and find the places of what was known. After this it is durable."""
    accepted = [item.outcome for item in items if isinstance(item.outcome, Accepted)]
    refused = [item.outcome for item in items if isinstance(item.outcome, Rejected)]
    kept = [_kept(refusal) for refusal in refused if refusal.reason == writer.OUR_FAULT]
    receipts = writer.writer().append(accepted, kept, deadline) if accepted or kept else []
    writer.report(len(items), receipts, kept)
    metrics.add_metric("Refused", MetricUnit.Count, len(refused) - len(kept))
    placed = iter(_placed(accepted, receipts, deadline))
    return [(item, next(placed) if isinstance(item.outcome, Accepted) else None) for item in items]


def _kept(refusal: Rejected) -> Rejected:
    return msgspec.structs.replace(refusal, record=_as_evidence(refusal.record))


def _placed(accepted: Sequence[Accepted], receipts: Sequence[Receipt], deadline: float) -> list[Receipt]:
    """The receipts, duplicates with the places of their originals, as far as they can be told."""
    unplaced = {
        item.event.key
        for item, receipt in zip(accepted, receipts, strict=True)
        if receipt.status == "duplicate" and receipt.index is None
    }
    places = _places(unplaced, deadline) if unplaced else {}
    return [
        msgspec.structs.replace(receipt, index=places.get(item.event.key)) if item.event.key in unplaced else receipt
        for item, receipt in zip(accepted, receipts, strict=True)
    ]


def _places(keys: Collection[tuple[str, ...]], deadline: float) -> dict[tuple[str, ...], int]:
    try:
        return writer.writer().store(deadline).places(keys)
    except (RetryableError, psycopg.Error) as error:  # what is committed must be answered so, with or without its place
        logger.warning("places of duplicates could not be looked up", extra={"cause": str(error)})
        writer.writer().discard()
        return {}


def _document(item: _Item, receipt: Receipt | None) -> dict[str, Any]:
    """A result: the receipt, or why there is none."""
    if isinstance(item.outcome, Rejected):
        return {"status": "rejected"} | _reason(item.outcome)
    assert receipt is not None
    tenant, id, source = item.outcome.event.key
    known = {"id": id, "tenant": tenant, "source": source}
    if receipt.refusal is None:
        return known | {"status": receipt.status, "index": receipt.index}
    status = "conflict" if receipt.refusal.reason == "conflict" else "rejected"
    return known | {"status": status} | _reason(receipt.refusal)


def _reason(refusal: Rejected) -> dict[str, Any]:
    detail = _OURS if refusal.reason in _OUR_FAULTS else refusal.detail
    fields = refusal.fields or {"id" if refusal.reason == "conflict" else "body": detail}
    return {"reason": refusal.reason, "detail": shortened(detail), "errors": errors(fields)}


def _refused(refusal: Rejected) -> Problem:
    """The answer to what cannot be an event."""
    if refusal.reason == "forbidden-tenant":
        return Problem(HTTPStatus.FORBIDDEN, **_reason(refusal))
    status = HTTPStatus.BAD_REQUEST if refusal.reason in _NO_TEXT else HTTPStatus.UNPROCESSABLE_ENTITY
    return Problem(status, **_reason(refusal))


def _quarantined(item: _Item, refusal: Rejected) -> Problem:
    """The answer to an event that is now in quarantine: 409 for an id that is taken, 422 for a key that was used."""
    assert isinstance(item.outcome, Accepted)
    tenant, id, source = item.outcome.event.key
    if refusal.reason != "conflict":
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, **_reason(refusal))
    if id == item.id:  # it had none, so it is the Idempotency-Key's
        message = "this Idempotency-Key was used for an event of other content: a key is for one request and its retries"
        faults = errors({"Idempotency-Key": message})
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, message, reason="conflict", errors=faults)
    return Problem(HTTPStatus.CONFLICT, **_reason(refusal), id=id, tenant=tenant, source=source)


def _unusable(status: HTTPStatus, message: str) -> Problem:
    return Problem(status, message, errors=errors({"body": message}))


def _too_many(events: int) -> Problem:
    message = f"expected at most {MOST_EVENTS} events, got {events} or more: send them in several requests"
    return _unusable(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


def _come_again() -> Problem:
    """A crash or a broken connection may hide that it was stored; ids say so when it comes again."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the database or a schema registry does not answer: send it again, with the same ids or the same Idempotency-Key",
        {"Retry-After": "10"},
    )
