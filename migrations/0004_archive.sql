-- Which events of which month went where. A segment is a set of whole batches of one tenant and month: a batch is visible
-- as a whole or not at all and never changes, so the set, once planned, names the same rows for ever.
CREATE TABLE prooftrail.archive_segment (
    id            bigint         GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant        text           NOT NULL REFERENCES prooftrail.tenant (name),
    month         date           NOT NULL CHECK (month = date_trunc('month', month)),
    batches       int8multirange NOT NULL,
    event_count   bigint         NOT NULL CHECK (event_count > 0),
    state         text           NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'verified', 'archived')),
    object_key    text           CONSTRAINT archive_segment_object_is_unique UNIQUE,
    object_bytes  bigint,
    object_sha256 bytea          CHECK (length(object_sha256) = 32),
    planned_at    timestamptz    NOT NULL DEFAULT clock_timestamp(),
    verified_at   timestamptz,
    archived_at   timestamptz,
    CHECK (state = 'planned' OR (object_key IS NOT NULL AND object_sha256 IS NOT NULL AND verified_at IS NOT NULL))
);
CREATE INDEX archive_segment_by_month ON prooftrail.archive_segment (month, tenant);
GRANT SELECT ON prooftrail.archive_segment TO prooftrail_query;

ALTER TABLE prooftrail.archive_segment ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON prooftrail.archive_segment FOR SELECT TO prooftrail_query USING (prooftrail.may_read(tenant));
CREATE POLICY archivist ON prooftrail.archive_segment TO prooftrail_archive USING (true) WITH CHECK (true);
GRANT SELECT, INSERT (tenant, month, batches, event_count) ON prooftrail.archive_segment TO prooftrail_archive;
GRANT UPDATE (state, object_key, object_bytes, object_sha256, verified_at) ON prooftrail.archive_segment TO prooftrail_archive;

-- The months whose partition is there, oldest first.
CREATE FUNCTION prooftrail.partition_months() RETURNS TABLE (month date)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
    SELECT to_date(substr(relname, 7), 'YYYY_MM') AS month
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'prooftrail.event'::regclass ORDER BY month
$$;
GRANT EXECUTE ON FUNCTION prooftrail.partition_months() TO prooftrail_archive;

-- The one way for events to leave PostgreSQL. In one transaction: nobody can write or read the month, every row of it is in
-- a verified segment, the segments become the place to read, the partition goes. So at every instant each event is
-- answered from exactly one tier. Says false, and does nothing, where rows came that no verified segment holds yet.
-- (DETACH CONCURRENTLY could not do this: it needs transactions of its own, between which an event has two places or none.)
CREATE FUNCTION prooftrail.drop_archived_partition(of_month date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
DECLARE
    partition text := 'event_' || to_char(of_month, 'YYYY_MM');
    stored    bigint;
    verified  bigint;
BEGIN
    IF of_month + interval '1 month' > now() - interval '1 month' THEN
        RAISE EXCEPTION 'month % is too young to leave the hot tier', of_month USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Shorter than deadlock_timeout: where a writer and we wait for each other, it is we who give way and come again.
    SET LOCAL lock_timeout = '500ms';
    EXECUTE format('LOCK TABLE prooftrail.event, prooftrail.%I IN ACCESS EXCLUSIVE MODE', partition);
    EXECUTE format('SELECT count(*) FROM prooftrail.%I', partition) INTO stored;
    SELECT coalesce(sum(event_count), 0) INTO verified
    FROM archive_segment WHERE month = of_month AND state = 'verified';
    IF stored <> verified THEN
        RETURN false;
    END IF;
    UPDATE archive_segment SET state = 'archived', archived_at = clock_timestamp()
    WHERE month = of_month AND state = 'verified';
    EXECUTE format('ALTER TABLE prooftrail.event DETACH PARTITION prooftrail.%I', partition);
    EXECUTE format('DROP TABLE prooftrail.%I', partition);
    RETURN true;
END
$$;
GRANT EXECUTE ON FUNCTION prooftrail.drop_archived_partition(date) TO prooftrail_archive;
