"""Sources: what the log says of who sends, folded from it after the fact, so that ingest pays nothing for it.

A step of folding reads the entries that follow on what was folded before, in the log's own order, and is one transaction in
PostgreSQL (`prooftrail.fold_log`, migrations/0010_sources.sql). What is told here is as of the entry up to which it was
folded, and says so.
"""

from __future__ import annotations

import time
from datetime import datetime

import msgspec

from prooftrail.api_keys import ALL_TENANTS
from prooftrail.database import Connection

STEP = 20_000  # entries of one transaction, and then to the end of a batch
RANGES = 20  # of numbers that are told of each source in a list of many
MOST_RANGES = 10_000  # that are kept of a source


class Numbers(msgspec.Struct, frozen=True):
    """Some of a source's sequence numbers: how many, and the lowest of their ranges, each as first and last number."""

    count: int
    ranges: list[tuple[int, int]]


class Sequence(msgspec.Struct, frozen=True):
    """A source's numbering: `contiguous` is the highest number below which none is missing, from `lowest` on.

    `late` came in a later batch than a higher one; `repeated` are carried by several events, `repetitions` more than there
    are numbers. Where `tracked_from` is above 0 there were too many gaps: what is below it is forgotten, and `untracked`
    events came with such a number (or with 2^63 - 1) since.
    """

    lowest: int | None
    contiguous: int | None
    highest: int
    missing: Numbers
    late: Numbers
    late_count: int
    repeated: Numbers
    repetitions: int
    tracked_from: int
    untracked: int


class Source(msgspec.Struct, frozen=True):
    """A source of a tenant: how many events it sent, when the first and last were stored, and the latest time in one.

    For so many seconds nothing came of it, and at most so many before (None until its second batch). `sequence` is None
    where its events carry no numbers.
    """

    tenant: str
    source: str
    events: int
    first_seen: datetime
    last_seen: datetime
    newest: datetime
    silence_seconds: float
    longest_silence_seconds: float | None
    longer_than_ever: bool
    sequence: Sequence | None


class Folded(msgspec.Struct, frozen=True):
    """How far a log of `entries` is folded, and the time that this is as of: now, where all of it is.

    `gone` entries were archived before they were folded; `unlisted_sources` and `unlisted_actions` say how many events were
    of a source or an action for which the lists had no room.
    """

    tenant: str
    entries: int
    folded: int
    as_of: datetime
    gone: int
    unlisted_sources: int
    unlisted_actions: int


def due(connection: Connection) -> list[str]:
    """The tenants whose logs have grown since they were folded, the one folded longest ago first."""
    rows = connection.execute(
        """
        SELECT tenant FROM prooftrail.log LEFT JOIN prooftrail.folded USING (tenant)
        WHERE log.size > coalesce(folded.size, 0) ORDER BY folded_at NULLS FIRST, tenant
        """
    )
    return [tenant for (tenant,) in rows]


def fold(connection: Connection, tenant: str, deadline: float) -> bool:
    """Fold what is new in a log, step by step; says whether all of it was before the deadline (`time.monotonic`).

    Each step is durable when it returns; a crash folds nothing twice and leaves nothing out.
    """
    while time.monotonic() < deadline:
        if _step(connection, tenant, max(1, round((deadline - time.monotonic()) * 1000))) == 0:
            return True
    return False


def _step(connection: Connection, tenant: str, milliseconds: int) -> int:
    with connection.transaction():
        connection.execute("SELECT set_config('statement_timeout', %s, true)", [str(milliseconds)])
        row = connection.execute("SELECT prooftrail.fold_log(%s, %s)", [tenant, STEP]).fetchone()
        # Commit. Before: nothing of the step is known. After: it is counted, and the next step begins behind it.
    assert row is not None
    return int(row[0])


def listing(
    connection: Connection,
    tenant: str,
    *,
    source: str | None = None,
    after: tuple[str, str] | None = None,
    limit: int | None = None,
    ranges: int = RANGES,
) -> list[Source]:
    """A tenant's sources (`ALL_TENANTS` for all) in the order of (tenant, source), from just behind `after` on.

    Where the reader is not the administrator: inside `search.reading_as`.
    """
    rows = connection.execute(
        """
        SELECT tenant, source, event_count, first_seen, last_seen, newest,
            extract(epoch FROM silence)::float8, extract(epoch FROM longest_silence)::float8,
            coalesce(silence > longest_silence, false),
            CASE WHEN highest IS NOT NULL THEN jsonb_build_object(
                'lowest', lower(numbers), 'highest', highest,
                'contiguous', (SELECT min(upper(range)) - 1 FROM unnest(numbers) AS range),
                'missing', prooftrail.told(int8multirange(range_merge(numbers)) - numbers, %(ranges)s),
                'late', prooftrail.told(late, %(ranges)s), 'late_count', late_count,
                'repeated', prooftrail.told(repeated, %(ranges)s), 'repetitions', repeated_count,
                'tracked_from', tracked_from, 'untracked', untracked
            )::text END
        FROM prooftrail.source JOIN prooftrail.folded USING (tenant)
        LEFT JOIN LATERAL (
            SELECT received_at FROM prooftrail.batch
            WHERE batch.tenant = folded.tenant AND first_index >= folded.size ORDER BY first_index LIMIT 1
        ) AS unfolded ON true
        CROSS JOIN LATERAL (
            SELECT greatest(coalesce(unfolded.received_at, clock_timestamp()) - last_seen, '0') AS silence
        ) AS since
        WHERE %(tenant)s IN (tenant, %(all)s) AND coalesce(source = %(source)s::text, true)
            AND coalesce((tenant, source) > (%(after_tenant)s::text, %(after_source)s::text), true)
        ORDER BY tenant, source LIMIT %(limit)s
        """,
        {
            "tenant": tenant,
            "all": ALL_TENANTS,
            "source": source,
            "after_tenant": after and after[0],
            "after_source": after and after[1],
            "limit": limit,
            "ranges": ranges,
        },
    )
    return [Source(*(*known, _sequence(text))) for *known, text in rows]


def _sequence(text: str | None) -> Sequence | None:
    return None if text is None else msgspec.json.decode(text, type=Sequence)


def folded(connection: Connection, tenants: list[str]) -> list[Folded]:
    """How far the logs of these tenants are folded."""
    rows = connection.execute(
        """
        SELECT tenant, log.size, coalesce(folded.size, 0), coalesce(unfolded.received_at, clock_timestamp()),
            coalesce(gone, 0), coalesce(unlisted_sources, 0), coalesce(unlisted_actions, 0)
        FROM prooftrail.log LEFT JOIN prooftrail.folded USING (tenant)
        LEFT JOIN LATERAL (
            SELECT received_at FROM prooftrail.batch
            WHERE batch.tenant = log.tenant AND first_index >= coalesce(folded.size, 0) ORDER BY first_index LIMIT 1
        ) AS unfolded ON true
        WHERE tenant = ANY(%s) ORDER BY tenant
        """,
        [tenants],
    )
    return [Folded(*row) for row in rows]
