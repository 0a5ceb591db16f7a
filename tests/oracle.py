"""The oracle: what must be true of the log in any database at any time, from the stored rows alone."""

from __future__ import annotations

from typing import Any

import msgspec

from prooftrail import strict_json, verification
from prooftrail.database import Connection
from prooftrail.event import Event


def check_log(admin: Connection) -> None:
    """Assert that nothing is lost, doubled or changed: by a few plain queries, and by our own verification."""
    with admin.transaction():
        admin.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        _check_keys(admin)
        _check_batches(admin)
    report = verification.verify(admin)
    assert list(map(str, report.findings)) == []


def _check_keys(admin: Connection) -> None:
    """Every stored event has exactly one key, every key an event or an archived month, none more than once."""
    assert _rows(admin, "SELECT tenant, source, id FROM prooftrail.event GROUP BY 1, 2, 3 HAVING count(*) > 1") == []
    assert (
        _rows(
            admin,
            "SELECT e.id FROM prooftrail.event e LEFT JOIN prooftrail.event_key k "
            "ON k.tenant = e.tenant AND k.id = e.id AND k.source = e.source AND k.time = e.time WHERE k.id IS NULL",
        )
        == []
    )
    hot = _rows(admin, "SELECT count(*) FROM prooftrail.event")[0][0]
    cold = _rows(admin, "SELECT coalesce(sum(event_count), 0) FROM prooftrail.archive_segment WHERE state = 'archived'")[0][
        0
    ]
    assert _rows(admin, "SELECT count(*) FROM prooftrail.event_key")[0][0] == hot + cold


def _check_batches(admin: Connection) -> None:
    """Every batch has all its entries, at positions 0..n-1, but for the months that were archived."""
    broken = _rows(
        admin,
        """
        SELECT batch.id FROM prooftrail.batch JOIN prooftrail.event ON batch_id = batch.id
        GROUP BY batch.id
        HAVING count(*) <> count(DISTINCT position) OR max(position) >= event_count
            OR bool_or(event.tenant <> batch.tenant)
            OR (count(*) <> event_count AND NOT EXISTS (
                SELECT FROM prooftrail.archive_segment WHERE state = 'archived' AND batches @> batch.id))
        """,
    )
    assert broken == []


def digest_of(event: Event) -> bytes:
    """The digest of an event whose JSON columns are unparsed."""
    parsed = {
        name: strict_json.decode(bytes(raw))
        for name in ("before", "after", "metadata")
        if isinstance(raw := getattr(event, name), msgspec.Raw)
    }
    return msgspec.structs.replace(event, **parsed).statement().digest()


def _rows(admin: Connection, query: str) -> list[tuple[Any, ...]]:
    return admin.execute(query.encode()).fetchall()
