"""The log's own routes: checkpoints, tiles and proofs, for whoever wants to check that nothing was changed."""

from __future__ import annotations

import base64
import functools
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.router import APIGatewayRouter

from answers import answer
from parameters import ConsistencyParameters, ProofParameters, ReaderParameters, parameters_of
from prooftrail import entries, proofs, search
from prooftrail.api_keys import ALL_TENANTS
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.event import Target
from prooftrail.evidence import Evidence, EvidenceMissing
from prooftrail.ledger.merkle import InvalidProof
from prooftrail.ledger.tiles import InvalidTile, Tile
from prooftrail.problem import Problem
from prooftrail.proofs import NoCheckpoint, NotCovered
from reader import Reader, own_settings, reader_of
from refusals import bad_request, one_owner

TEXT = "text/plain; charset=utf-8"
SOON = {"Retry-After": "60"}  # seconds within which a checkpoint follows an entry
FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # a tile never changes; it is its tenant's

router = APIGatewayRouter()  # type: ignore[no-untyped-call]  # theirs


@router.get("/log/checkpoint")
def checkpoint() -> Response[str]:
    """The log's latest checkpoint, a signed note (C2SP tlog-checkpoint)."""
    reader = _log_reader(parameters_of(router.current_event, ReaderParameters))
    with search.reading_as(reader.connection, reader.tenant):
        latest = proofs.latest(reader.connection, reader.tenant)
    if latest is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"the log of {reader.tenant} has no checkpoint yet", SOON)
    return Response(HTTPStatus.OK, TEXT, latest.note.decode(), {"Cache-Control": "no-store"})


@router.get("/log/tile/.+")
def tile() -> Response[bytes]:
    """A tile of the tree: 256 hashes, or as many as a partial one's path says (C2SP tlog-tiles)."""
    reader = _log_reader(parameters_of(router.current_event, ReaderParameters))
    try:
        wanted = Tile.parse(router.current_event.path.removeprefix("/log/"))
        content = _evidence().tile(reader.tenant, wanted)
    except (InvalidTile, EvidenceMissing) as error:
        raise Problem(HTTPStatus.NOT_FOUND, f"there is no such tile: {error}") from None
    return Response(HTTPStatus.OK, "application/octet-stream", content, FOR_EVER)


@router.get("/log/consistency")
def consistency() -> Response[str]:
    """That the checkpoint of size `to` (else the latest) continues that of size `from` (RFC 6962 2.1.2)."""
    asked = parameters_of(router.current_event, ConsistencyParameters)
    reader = _log_reader(asked)
    with search.reading_as(reader.connection, reader.tenant):
        try:
            proof = proofs.consistency(reader.connection, _evidence(), reader.tenant, asked.old, asked.new)
        except NoCheckpoint as error:
            raise Problem(HTTPStatus.NOT_FOUND, str(error)) from None
        except InvalidProof as error:
            raise bad_request([{"field": "from", "message": str(error)}]) from None
    sides = {"from": _side(proof.old), "to": _side(proof.new)}
    return answer(sides | {"hashes": list(map(_base64, proof.hashes))})


def _side(of: proofs.Checkpoint) -> dict[str, Any]:
    return {"size": of.size, "root": _base64(of.root)}


@router.get("/events/.+/proof")
def event_proof() -> Response[str]:
    """The proof in one file that an event is in its log (C2SP tlog-proof); `extra` is the entry's header."""
    id = unquote(router.current_event.path.removeprefix("/events/").removesuffix("/proof"))
    asked = parameters_of(router.current_event, ProofParameters)
    reader = reader_of(router.current_event, asked)
    with search.reading_as(reader.connection, reader.tenant):
        owner = one_owner(search.owners(reader.connection, reader.tenant, id, asked.source), id)
        stored = entries.find(reader.connection, _archive(), owner, id)
        try:
            entry = proofs.place(reader.connection, stored)
            proof = proofs.inclusion(reader.connection, _evidence(), owner.tenant, entry, asked.size)
        except NoCheckpoint as error:
            raise Problem(HTTPStatus.NOT_FOUND, str(error)) from None
        except NotCovered as error:
            raise Problem(HTTPStatus.CONFLICT, str(error), SOON) from None
    reader.record("proof.read", {owner.tenant}, Target(type="event", id=id))
    return Response(HTTPStatus.OK, TEXT, proof.encode().decode())


def _log_reader(asked: ReaderParameters) -> Reader:
    """Who asks, and of one log: an operator has to name it."""
    reader = reader_of(router.current_event, asked)
    if reader.tenant == ALL_TENANTS:
        raise bad_request([{"field": "tenant", "message": "expected the tenant whose log is asked for"}])
    return reader


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@functools.cache
def _evidence() -> Evidence:
    return Evidence(own_settings().prooftrail_evidence_bucket)


@functools.cache
def _archive() -> ArchiveBucket:
    return ArchiveBucket(own_settings().prooftrail_archive_bucket)
