-- The log itself: tenants, batches, events by month, the keys that keep an event from being stored twice, and the quarantine.

CREATE TABLE prooftrail.tenant (
    name       text        PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row per ingest transaction and tenant: the events that became durable together.
CREATE TABLE prooftrail.batch (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant      text        NOT NULL REFERENCES prooftrail.tenant (name),
    event_count integer     NOT NULL CHECK (event_count > 0),
    min_time    timestamptz NOT NULL,
    max_time    timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- No DEFAULT partition (it would block detaching) and no key across partitions (event_key is the key).
-- (batch_id, position) names an entry for ever: rows are never updated.
CREATE TABLE prooftrail.event (
    tenant            text        NOT NULL,
    time              timestamptz NOT NULL,
    batch_id          bigint      NOT NULL,
    position          integer     NOT NULL,
    id                text        NOT NULL,
    source            text        NOT NULL,
    sequence          bigint,
    category          text,
    action            text        NOT NULL,
    level             text        NOT NULL,
    outcome           text        NOT NULL,
    actor_type        text,
    actor_id          text,
    actor_name        text,
    actor_ip          text,
    actor_user_agent  text,
    actor_session_id  text,
    actor_roles       text[],
    target_type       text,
    target_id         text,
    target_name       text,
    site              text,
    message           text,
    before            jsonb,
    after             jsonb,
    error_code        text,
    error_message     text,
    error_stack_trace text,
    duration_ms       double precision,
    request_id        text,
    trace_id          text,
    metadata          jsonb
) PARTITION BY RANGE (time);

-- Each index is paid for by every event (measured: the B-trees are most of the price of a row), so there are four, one per
-- question people ask; a batch's rows lie together, so a BRIN finds them for next to nothing.
CREATE INDEX event_by_time   ON prooftrail.event (tenant, time, batch_id, position);
CREATE INDEX event_by_actor  ON prooftrail.event (tenant, actor_id, time) WHERE actor_id IS NOT NULL;
CREATE INDEX event_by_target ON prooftrail.event (tenant, target_id, time) WHERE target_id IS NOT NULL;
CREATE INDEX event_by_action ON prooftrail.event (tenant, action, time);
CREATE INDEX event_by_batch  ON prooftrail.event USING brin (batch_id);

-- (tenant, source, id) is CloudEvents' identity of an event. It is held here because a unique key of `event` would have to
-- contain its partition key, and the same event with another time must still be found out. Outlives the archived months.
CREATE TABLE prooftrail.event_key (
    tenant text        NOT NULL,
    id     text        NOT NULL,
    source text        NOT NULL,
    time   timestamptz NOT NULL,
    digest bytea       NOT NULL CHECK (length(digest) = 32),
    CONSTRAINT event_key_is_unique PRIMARY KEY (tenant, id, source)
);

-- What could not become an event waits here with its exact bytes. `origin` names the broker's message (and the element of
-- it), so that a redelivery after a lost acknowledgement does not add a second row.
CREATE TABLE prooftrail.quarantine (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    origin      text        NOT NULL CONSTRAINT quarantine_origin_is_unique UNIQUE,
    reason      text        NOT NULL,
    detail      text        NOT NULL,
    raw         bytea       NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Append-only by privilege (nobody is granted more) and by trigger (which stops the owner's slip of the hand too).
CREATE FUNCTION prooftrail.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on %.% is refused: the log is append-only', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prooftrail.event
    FOR EACH STATEMENT EXECUTE FUNCTION prooftrail.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prooftrail.batch
    FOR EACH STATEMENT EXECUTE FUNCTION prooftrail.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prooftrail.event_key
    FOR EACH STATEMENT EXECUTE FUNCTION prooftrail.refuse_change();

-- Makes the partition of the month that `day` lies in (UTC), unless it is there; says its name.
-- Made aside and then attached: that waits for no running insert and lets none wait.
CREATE FUNCTION prooftrail.create_partition(day date) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
DECLARE
    first     date := date_trunc('month', day)::date;
    partition text := 'event_' || to_char(day, 'YYYY_MM');
    starts    text := to_char(first, 'YYYY-MM-DD') || ' 00:00:00+00';
    ends      text := to_char(first + interval '1 month', 'YYYY-MM-DD') || ' 00:00:00+00';
BEGIN
    IF to_regclass('prooftrail.' || partition) IS NOT NULL THEN
        RETURN partition;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('prooftrail.create_partition'));
    -- Another may have made it while we waited; the catalogue itself is asked, because to_regclass remembers its "no".
    IF EXISTS (SELECT FROM pg_class WHERE relname = partition AND relnamespace = 'prooftrail'::regnamespace) THEN
        RETURN partition;
    END IF;
    EXECUTE format('CREATE TABLE prooftrail.%I (LIKE prooftrail.event)', partition);
    EXECUTE format('ALTER TABLE prooftrail.event ATTACH PARTITION prooftrail.%I FOR VALUES FROM (%L) TO (%L)',
                   partition, starts, ends);
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prooftrail.%I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION prooftrail.refuse_change()', partition);
    -- Rows are copied into the partition itself (COPY does not go through a parent with row-level security) and read
    -- through the parent, where row-level security holds; so each side is granted its own door only.
    EXECUTE format('GRANT INSERT ON prooftrail.%I TO prooftrail_ingest', partition);
    EXECUTE format('GRANT SELECT ON prooftrail.%I TO prooftrail_archive', partition);
    RETURN partition;
END
$$;

GRANT EXECUTE ON FUNCTION prooftrail.create_partition(date) TO prooftrail_ingest, prooftrail_archive;
GRANT SELECT, INSERT ON prooftrail.tenant TO prooftrail_ingest;
GRANT SELECT, INSERT ON prooftrail.event_key TO prooftrail_ingest;
GRANT SELECT (id, tenant), INSERT ON prooftrail.batch TO prooftrail_ingest;
GRANT SELECT (origin), INSERT ON prooftrail.quarantine TO prooftrail_ingest;

-- A reader sees the tenant that the transaction's setting names, all of them where it is '*', and nothing without it.
-- (A CASE, because the planner takes it to let half of the rows through, where an IN would count as nearly none and turn
-- it away from the index that has the order.)
CREATE FUNCTION prooftrail.may_read(of_tenant text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE current_setting('prooftrail.tenant', true) WHEN '*' THEN true WHEN of_tenant THEN true ELSE false END
$$;
GRANT EXECUTE ON FUNCTION prooftrail.may_read(text) TO prooftrail_query;

ALTER TABLE prooftrail.event ENABLE ROW LEVEL SECURITY;
ALTER TABLE prooftrail.event FORCE ROW LEVEL SECURITY;
ALTER TABLE prooftrail.event_key ENABLE ROW LEVEL SECURITY;
ALTER TABLE prooftrail.tenant ENABLE ROW LEVEL SECURITY;

CREATE POLICY reader ON prooftrail.event FOR SELECT TO prooftrail_query USING (prooftrail.may_read(tenant));
CREATE POLICY reader ON prooftrail.event_key FOR SELECT TO prooftrail_query USING (prooftrail.may_read(tenant));
CREATE POLICY reader ON prooftrail.tenant FOR SELECT TO prooftrail_query USING (prooftrail.may_read(name));
CREATE POLICY writer ON prooftrail.event_key TO prooftrail_ingest USING (true) WITH CHECK (true);
CREATE POLICY writer ON prooftrail.tenant TO prooftrail_ingest USING (true) WITH CHECK (true);
GRANT SELECT ON prooftrail.event, prooftrail.event_key, prooftrail.tenant TO prooftrail_query;

-- A transaction that hangs must not hold locks for ever, whatever froze its function. Set for this database alone: a role
-- is the whole server's, and another database of it may be migrating right now.
DO $$
BEGIN
    EXECUTE format('ALTER ROLE prooftrail_ingest IN DATABASE %I SET idle_in_transaction_session_timeout = %L', current_database(), '60s');
    EXECUTE format('ALTER ROLE prooftrail_query IN DATABASE %I SET idle_in_transaction_session_timeout = %L', current_database(), '30s');
    EXECUTE format('ALTER ROLE prooftrail_query IN DATABASE %I SET statement_timeout = %L', current_database(), '20s');
END
$$;
