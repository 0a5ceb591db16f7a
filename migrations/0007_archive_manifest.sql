-- The archive's manifest defends itself: a segment is verified by one function that looks for itself, what is archived cannot
-- be edited, and the role that archives is granted no UPDATE.

-- The name of the object follows from the row, so nobody has to be believed about it.
ALTER TABLE prooftrail.archive_segment
    DROP COLUMN object_key,  -- and with it the constraints that name it
    ADD COLUMN object_key text NOT NULL GENERATED ALWAYS AS (
        'tenant=' || tenant || '/year=' || extract(year FROM month)::text
        || '/month=' || lpad(extract(month FROM month)::text, 2, '0')
        || '/segment-' || lpad(id::text, greatest(length(id::text), 8), '0') || '.parquet'
    ) STORED CONSTRAINT archive_segment_object_is_unique UNIQUE,
    ADD COLUMN object_version text,
    ADD COLUMN stored_bytes bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT archive_segment_says_what_was_verified CHECK (
        state = 'planned' OR (object_bytes IS NOT NULL AND object_sha256 IS NOT NULL AND verified_at IS NOT NULL)
    );
COMMENT ON COLUMN prooftrail.archive_segment.object_version IS 'S3''s version id of the object that was verified';
COMMENT ON COLUMN prooftrail.archive_segment.stored_bytes IS 'what the rows took up in PostgreSQL when they were planned, about';

REVOKE UPDATE (state, object_bytes, object_sha256, verified_at), INSERT ON prooftrail.archive_segment FROM prooftrail_archive;
GRANT INSERT (tenant, month, batches, event_count, stored_bytes) ON prooftrail.archive_segment TO prooftrail_archive;

-- Forward only, one step at a time, and never another tenant, month, set of batches or number of events.
CREATE FUNCTION prooftrail.guard_segment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF (NEW.id, NEW.tenant, NEW.month, NEW.batches, NEW.event_count) = (OLD.id, OLD.tenant, OLD.month, OLD.batches, OLD.event_count)
            AND (OLD.state, NEW.state) IN (('planned', 'verified'), ('verified', 'archived')) THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% of a segment that is % is refused: the manifest only goes forward', TG_OP,
        CASE TG_OP WHEN 'TRUNCATE' THEN 'anything' ELSE OLD.state END USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER forward_only BEFORE UPDATE OR DELETE ON prooftrail.archive_segment
    FOR EACH ROW EXECUTE FUNCTION prooftrail.guard_segment();
CREATE TRIGGER append_only BEFORE TRUNCATE ON prooftrail.archive_segment
    FOR EACH STATEMENT EXECUTE FUNCTION prooftrail.refuse_change();

-- The rows of a segment's batches that PostgreSQL holds. (Joined, because asked row by row a large multirange is unpacked for
-- each of them.)
CREATE FUNCTION prooftrail.count_segment(of_segment prooftrail.archive_segment) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = prooftrail, pg_temp AS $$
DECLARE
    stored bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM prooftrail.%I AS event JOIN ('
                   'SELECT generate_series(lower(batch), upper(batch) - 1) AS batch_id FROM unnest($1) AS batch'
                   ') AS planned USING (batch_id) WHERE tenant = $2', 'event_' || to_char(of_segment.month, 'YYYY_MM'))
        INTO stored USING of_segment.batches, of_segment.tenant;
    RETURN stored;
EXCEPTION
    WHEN undefined_table THEN RETURN 0;
END
$$;

-- The one step from planned to verified: the caller says what it read back, and this what must have been in it. Says false
-- where the segment is not planned any more: another run was quicker.
CREATE FUNCTION prooftrail.verify_segment(of_segment bigint, events bigint, bytes bigint, sha256 bytea, version text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
DECLARE
    segment archive_segment;
    stored  bigint;
BEGIN
    SELECT * INTO segment FROM archive_segment WHERE id = of_segment AND state = 'planned' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    stored := count_segment(segment);
    IF stored <> segment.event_count OR stored <> events THEN
        RAISE EXCEPTION 'segment % cannot be verified: planned with % events, PostgreSQL holds %, the object %',
            of_segment, segment.event_count, stored, events USING ERRCODE = 'check_violation';
    END IF;
    UPDATE archive_segment
    SET state = 'verified', object_bytes = bytes, object_sha256 = sha256, object_version = version, verified_at = clock_timestamp()
    WHERE id = of_segment;
    RETURN true;
END
$$;
GRANT EXECUTE ON FUNCTION prooftrail.verify_segment(bigint, bigint, bigint, bytea, text) TO prooftrail_archive;

-- As before; besides, a month that another run dropped while this one waited counts as dropped, and what was archived here
-- bears this transaction's time, so that it can be recorded in the log.
CREATE OR REPLACE FUNCTION prooftrail.drop_archived_partition(of_month date) RETURNS boolean
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
    BEGIN
        EXECUTE format('LOCK TABLE prooftrail.event, prooftrail.%I IN ACCESS EXCLUSIVE MODE', partition);
    EXCEPTION
        WHEN undefined_table THEN RETURN true;
    END;
    EXECUTE format('SELECT count(*) FROM prooftrail.%I', partition) INTO stored;
    SELECT coalesce(sum(event_count), 0) INTO verified
    FROM archive_segment WHERE month = of_month AND state = 'verified';
    IF stored <> verified THEN
        RETURN false;
    END IF;
    UPDATE archive_segment SET state = 'archived', archived_at = now()
    WHERE month = of_month AND state = 'verified';
    EXECUTE format('ALTER TABLE prooftrail.event DETACH PARTITION prooftrail.%I', partition);
    EXECUTE format('DROP TABLE prooftrail.%I', partition);
    RETURN true;
END
$$;

-- As before, for the months that an event can be of: ingest takes times from 1970 to a little ahead of now. Whoever may call
-- this cannot fill the catalogue with partitions that nothing would ever be in.
CREATE OR REPLACE FUNCTION prooftrail.create_partition(day date) RETURNS text
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
    IF day IS NULL OR day < '1970-01-01' OR day > now() + interval '5 years' THEN
        RAISE EXCEPTION 'no event can be of %: expected a day from 1970-01-01 to five years ahead', day
            USING ERRCODE = 'invalid_parameter_value';
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
    EXECUTE format('GRANT SELECT ON prooftrail.%I TO prooftrail_archive, prooftrail_verify', partition);
    RETURN partition;
END
$$;
