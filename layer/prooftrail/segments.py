"""Segments: which events of a month go into which object, and how far each has come.

planned (the rows are named) -> verified (the object holds exactly them) -> archived (the object is the place to read).
Every step is one transaction and may be repeated: a run that was killed is taken up by the next.
"""

from __future__ import annotations

from datetime import date

import msgspec
from psycopg import sql

from prooftrail.database import Connection


class Segment(msgspec.Struct, frozen=True):
    """One tenant's events of one month, or a part of them, on their way to one Parquet object."""

    id: int
    tenant: str
    month: date
    event_count: int
    state: str

    @property
    def object_key(self) -> str:
        """Where its object lies: Hive's layout, and a name that no other segment will ever have."""
        return f"tenant={self.tenant}/year={self.month:%Y}/month={self.month:%m}/segment-{self.id:08d}.parquet"


def months(connection: Connection) -> list[date]:
    """The months that have a partition, oldest first."""
    return [month for (month,) in connection.execute("SELECT month FROM prooftrail.partition_months()")]


def plan(connection: Connection, month: date, most_rows: int) -> list[Segment]:
    """Put every event of the month that is in no segment yet into new ones, and return all that are not archived.

    A batch is never divided, so a segment may exceed `most_rows` by one batch.
    """
    partition = sql.Identifier("prooftrail", f"event_{month:%Y_%m}")
    query = sql.SQL(
        """
        INSERT INTO prooftrail.archive_segment (tenant, month, batches, event_count)
        SELECT tenant, {month}, range_agg(int8range(batch_id, batch_id + 1)), sum(events)
        FROM (
            SELECT tenant, batch_id, events,
                   (sum(events) OVER (PARTITION BY tenant ORDER BY batch_id) - events) / {most_rows} AS part
            FROM (
                SELECT tenant, batch_id, count(*) AS events FROM {partition} AS event
                WHERE NOT EXISTS (
                    SELECT FROM ({planned}) AS planned
                    WHERE planned.tenant = event.tenant AND planned.batch_id = event.batch_id
                )
                GROUP BY tenant, batch_id
            ) AS batches
        ) AS parts
        GROUP BY tenant, trunc(part)
        """
    ).format(
        month=sql.Literal(month),
        most_rows=sql.Literal(most_rows),
        partition=partition,
        planned=_batches(sql.SQL("month = {}").format(sql.Literal(month))),
    )
    with connection.transaction():
        # Two runs that plan at once would put the same batches into two segments; so the second waits and finds none left.
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('prooftrail.archive_segment'))")
        connection.execute(query)
    return pending(connection, month)


def pending(connection: Connection, month: date) -> list[Segment]:
    """The month's segments that are not archived yet."""
    rows = connection.execute(
        """
        SELECT id, tenant, month, event_count, state FROM prooftrail.archive_segment
        WHERE month = %s AND state <> 'archived' ORDER BY id
        """,
        [month],
    )
    return [Segment(*row) for row in rows]


def mark_verified(connection: Connection, segment: Segment, size: int, sha256: bytes) -> None:
    """Record that the object holds exactly the segment's events."""
    connection.execute(
        """
        UPDATE prooftrail.archive_segment
        SET state = 'verified', object_key = %s, object_bytes = %s, object_sha256 = %s, verified_at = clock_timestamp()
        WHERE id = %s AND state = 'planned'
        """,
        [segment.object_key, size, sha256, segment.id],
    )


def rows_query(segment: Segment) -> str:
    """The SQL that reads the segment's rows in their order, with the types that Parquet shall have.

    Text, because the reader (ADBC) binds no parameters to it; the tenant is the Hive partition and so no column.
    """
    return (
        sql.SQL(
            """
            SELECT id, time, source, sequence, category, action, level, outcome,
                   actor_type, actor_id, actor_name, actor_ip, actor_user_agent, actor_session_id, actor_roles,
                   target_type, target_id, target_name, site, message, before::text AS before, after::text AS after,
                   error_code, error_message, error_stack_trace, duration_ms, request_id, trace_id,
                   metadata::text AS metadata, batch_id, position, salt, commitments
            FROM {partition} AS event
            WHERE tenant = {tenant} AND batch_id IN (SELECT batch_id FROM ({batches}) AS batches)
            ORDER BY time, batch_id, position
            """
        )
        .format(
            partition=sql.Identifier("prooftrail", f"event_{segment.month:%Y_%m}"),
            tenant=sql.Literal(segment.tenant),
            batches=_batches(sql.SQL("id = {}").format(sql.Literal(segment.id))),
        )
        .as_string()
    )


def _batches(of_segments: sql.Composable) -> sql.Composable:
    """The batches of segments as rows, to be joined: asked row by row, a large multirange is unpacked for each of them."""
    return sql.SQL(
        "SELECT tenant, generate_series(lower(batches), upper(batches) - 1) AS batch_id "
        "FROM (SELECT tenant, unnest(batches) AS batches FROM prooftrail.archive_segment WHERE {}) AS ranges"
    ).format(of_segments)


def drop_archived(connection: Connection, month: date) -> bool:
    """Hand the month over from PostgreSQL to its objects; false where events came that no verified segment holds.

    Raises `psycopg.errors.LockNotAvailable` where others use the table right now: try again.
    """
    row = connection.execute("SELECT prooftrail.drop_archived_partition(%s)", [month]).fetchone()
    return row is not None and bool(row[0])
