"""Segments: which events of a month go into which object, and how far each has come.

planned (the rows are named) -> verified (the object holds exactly them) -> archived (the object is the place to read); one
that was not archived is abandoned when some of its events are erased, and they are planned anew.
Every step is one transaction and may be repeated: a run that was killed is taken up by the next. Of two runs at once, one
holds a segment (`claim`) and the other leaves it alone.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import msgspec
from psycopg import sql

from prooftrail import system
from prooftrail.api_keys import ALL_TENANTS
from prooftrail.archive_bucket import Version
from prooftrail.database import Connection
from prooftrail.event import Event, Target, own_event


class Segment(msgspec.Struct, frozen=True):
    """One tenant's events of one month, or a part of them, on their way to one Parquet object.

    `stored_bytes` is about what the rows took up in PostgreSQL. `object_version` and `object_sha256` are those of the
    object that was read back, and None until then.
    """

    id: int
    tenant: str
    month: date
    event_count: int
    stored_bytes: int
    state: str
    object_key: str
    object_version: str | None
    object_sha256: bytes | None

    def footer(self) -> dict[str, str]:
        """What its object says of itself."""
        return {
            "prooftrail.tenant": self.tenant,
            "prooftrail.month": f"{self.month:%Y-%m}",
            "prooftrail.segment": str(self.id),
            "prooftrail.events": str(self.event_count),
        }


class ArchivedMonth(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of how many tenants how many events of a month are to be read from how many objects.

    `and_earlier` is said of the last of many, where there are still more before it.
    """

    month: str
    tenants: int
    objects: int
    events: int
    and_earlier: bool = False


MOST_MONTHS = 120  # that are told of at once
_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, Segment.__struct_fields__))
# No month is archived before another one has passed (prooftrail.drop_archived_partition), and none has fewer days.
_TOO_YOUNG = timedelta(days=28)
# What a row takes up that none of its long columns accounts for, about.
_REST_OF_A_ROW = 300
_LONG = ("message", "before", "after", "metadata", "error_message", "error_stack_trace", "actor_user_agent", "target_name")


def months(connection: Connection) -> list[date]:
    """The months that have a partition, oldest first."""
    return [month for (month,) in connection.execute("SELECT month FROM prooftrail.partition_months()")]


def plan(connection: Connection, month: date, most_rows: int, most_bytes: int) -> list[Segment]:
    """Put every event of the month that is in no segment yet into new ones, and return all that are not archived.

    A batch is never divided, so a segment may exceed `most_rows` and `most_bytes` (as they are stored) by one batch.
    Raises `psycopg.errors.UndefinedTable` where the month has no partition (any more).
    """
    query = sql.SQL(
        """
        INSERT INTO prooftrail.archive_segment (tenant, month, batches, event_count, stored_bytes)
        SELECT tenant, {month}, range_agg(int8range(batch_id, batch_id + 1)), sum(events), sum(bytes)
        FROM (
            SELECT tenant, batch_id, events, bytes,
                   div(sum(events) OVER earlier - events, {most_rows}) AS part_by_rows,
                   div(sum(bytes) OVER earlier - bytes, {most_bytes}) AS part_by_bytes
            FROM (
                SELECT tenant, batch_id, count(*) AS events, sum({size}) AS bytes FROM {partition} AS event
                WHERE NOT EXISTS (
                    SELECT FROM ({planned}) AS planned
                    WHERE planned.tenant = event.tenant AND planned.batch_id = event.batch_id
                )
                GROUP BY tenant, batch_id
            ) AS batches
            WINDOW earlier AS (PARTITION BY tenant ORDER BY batch_id)
        ) AS parts
        GROUP BY tenant, part_by_rows, part_by_bytes
        """
    ).format(
        month=sql.Literal(month),
        most_rows=sql.Literal(most_rows),
        most_bytes=sql.Literal(most_bytes),
        size=_stored_size(),
        partition=_partition(month),
        planned=_batches(sql.SQL("month = {} AND state <> 'abandoned'").format(sql.Literal(month))),
    )
    with connection.transaction():
        # Two runs that plan at once would put the same batches into two segments; so the second waits and finds none left.
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('prooftrail.archive_segment'))")
        connection.execute(query)
    return _listing(connection, sql.SQL("month = {} AND state IN ('planned', 'verified')").format(sql.Literal(month)))


def _stored_size() -> sql.Composable:
    """What a row takes up, compressed as it is: told by the row, without fetching what lies outside of it."""
    sizes = [sql.SQL("coalesce(pg_column_size({}), 0)").format(sql.Identifier(name)) for name in _LONG]
    return sql.SQL(" + ").join([sql.Literal(_REST_OF_A_ROW), *sizes])


def claim(connection: Connection, segment: Segment) -> bool:
    """Take hold of a planned segment until the transaction ends; false where another run has it, or had it.

    By an advisory lock, which goes with the connection: no killed run holds one.
    """
    if not lock(connection, segment.id):
        return False
    planned = connection.execute("SELECT FROM prooftrail.archive_segment WHERE id = %s AND state = 'planned'", [segment.id])
    return planned.fetchone() is not None


def lock(connection: Connection, id: int) -> bool:
    """Keep everybody else from the segment's object until the transaction ends; false where somebody is at it."""
    row = connection.execute(
        "SELECT pg_try_advisory_xact_lock(hashtextextended('prooftrail.archive_segment', %s))", [id]
    ).fetchone()
    return row is not None and bool(row[0])


def mark_verified(connection: Connection, segment: Segment, events: int, version: Version, sha256: bytes) -> None:
    """Record that the object, in the version that was read back, holds exactly the segment's events.

    Raises `psycopg.errors.CheckViolation` where PostgreSQL counts otherwise.
    """
    connection.execute(
        "SELECT prooftrail.verify_segment(%s, %s, %s, %s, %s)",
        [segment.id, events, version.size, sha256, version.id],
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
            partition=_partition(segment.month),
            tenant=sql.Literal(segment.tenant),
            batches=_batches(sql.SQL("id = {}").format(sql.Literal(segment.id))),
        )
        .as_string(None)
    )


def drop_archived(connection: Connection, month: date) -> int | None:
    """Hand the month over from PostgreSQL to its objects, and record it in each tenant's log; says how many events left.

    None, and nothing is done, where events came that no verified segment holds. Raises `psycopg.errors.LockNotAvailable`
    where others use the table right now: try again.
    """
    with connection.transaction():
        row = connection.execute("SELECT prooftrail.drop_archived_partition(%s)", [month]).fetchone()
        if row is None or not row[0]:
            return None
        archived = _listing(
            connection, sql.SQL("month = {} AND state = 'archived' AND archived_at = now()").format(sql.Literal(month))
        )
        tenants = sorted({segment.tenant for segment in archived})
        system.record(connection, *(_archived_event(tenant, month, archived) for tenant in tenants))
        # Commit. Before it every event is answered from PostgreSQL, after it from the objects, and the logs say so.
    return sum(segment.event_count for segment in archived)


def _archived_event(tenant: str, month: date, archived: list[Segment]) -> Event:
    own = [segment for segment in archived if segment.tenant == tenant]
    return own_event(
        "archive.month",
        tenant=tenant,
        target=Target(type="month", id=f"{month:%Y-%m}"),
        metadata={
            "month": f"{month:%Y-%m}",
            "segments": len(own),
            "events": sum(segment.event_count for segment in own),
            "objects": [{"key": item.object_key, "sha256": (item.object_sha256 or b"").hex()} for item in own],
        },
    )


def archived(connection: Connection, tenant: str | None, month: date | None = None) -> list[Segment]:
    """The segments whose place to read is their object, of a tenant or of all, of a month or of all.

    In the order in which they were planned.
    """
    of_tenant = sql.SQL("tenant = {}").format(sql.Literal(tenant)) if tenant else sql.SQL("true")
    of_month = sql.SQL("month = {}").format(sql.Literal(month)) if month else sql.SQL("true")
    return _listing(connection, sql.SQL("state = 'archived' AND {} AND {}").format(of_tenant, of_month))


def archived_months(
    connection: Connection, tenant: str, since: datetime | None, until: datetime | None
) -> list[ArchivedMonth]:
    """The archived months, of a tenant or of all (`ALL_TENANTS`), that overlap `since` <= time < `until`, newest first.

    At most `MOST_MONTHS` of them. Where all that is asked for is too young to be archived, the database is not asked.
    """
    if since is not None and since > datetime.now(UTC) - _TOO_YOUNG:
        return []
    rows = connection.execute(
        """
        SELECT to_char(month, 'YYYY-MM'), count(DISTINCT tenant), count(*), sum(event_count)::bigint
        FROM prooftrail.archive_segment
        WHERE state = 'archived' AND %(tenant)s IN (tenant, %(all)s)
            AND month >= date_trunc('month', coalesce(%(since)s::timestamptz, '-infinity') AT TIME ZONE 'UTC')::date
            AND month < coalesce(%(until)s::timestamptz, 'infinity') AT TIME ZONE 'UTC'
        GROUP BY month ORDER BY month DESC LIMIT %(limit)s
        """,
        {"tenant": tenant, "all": ALL_TENANTS, "since": since, "until": until, "limit": MOST_MONTHS + 1},
    )
    months = [ArchivedMonth(*row) for row in rows]
    if len(months) > MOST_MONTHS:
        months[MOST_MONTHS - 1 :] = [msgspec.structs.replace(months[MOST_MONTHS - 1], and_earlier=True)]
    return months


def holding(connection: Connection, batches: list[int]) -> list[Segment]:
    """The segments whose place to read is their object, and which have something of these batches."""
    held = sql.SQL("EXISTS (SELECT FROM unnest({}::bigint[]) AS batch WHERE batches @> batch)").format(sql.Literal(batches))
    return _listing(connection, sql.SQL("state = 'archived' AND {}").format(held))


def by_id(connection: Connection, id: int) -> Segment:
    """The segment of that number."""
    (segment,) = _listing(connection, sql.SQL("id = {}").format(sql.Literal(id)))
    return segment


def _listing(connection: Connection, condition: sql.Composable) -> list[Segment]:
    query = sql.SQL("SELECT {} FROM prooftrail.archive_segment WHERE {} ORDER BY id").format(_COLUMNS, condition)
    return [Segment(*row) for row in connection.execute(query)]


def _partition(month: date) -> sql.Composable:
    return sql.Identifier("prooftrail", f"event_{month:%Y_%m}")


def _batches(of_segments: sql.Composable) -> sql.Composable:
    """The batches of segments as rows, to be joined: asked row by row, a large multirange is unpacked for each of them."""
    return sql.SQL(
        "SELECT tenant, generate_series(lower(batches), upper(batches) - 1) AS batch_id "
        "FROM (SELECT tenant, unnest(batches) AS batches FROM prooftrail.archive_segment WHERE {}) AS ranges"
    ).format(of_segments)
