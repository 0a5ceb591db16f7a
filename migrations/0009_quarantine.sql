-- Quarantined records keep their headers, which say how the bytes are to be read again, and have an end: replayed, or discarded.
-- Every attempt and every end is an event in the log of `_prooftrail` too, and verification compares the two.

ALTER TABLE prooftrail.quarantine
    ADD COLUMN headers        json        NOT NULL DEFAULT '{}',
    ADD COLUMN state          text        NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'replayed', 'discarded')),
    ADD COLUMN attempts       integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    ADD COLUMN settled_at     timestamptz,
    ADD COLUMN settled_by     text,
    ADD COLUMN became         jsonb       CHECK (jsonb_typeof(became) = 'array'),
    ADD COLUMN discard_reason text        CHECK (discard_reason <> ''),
    ADD COLUMN cleared_at     timestamptz,
    ADD CONSTRAINT quarantine_says_how_it_ended CHECK (
        (state = 'waiting') = (settled_at IS NULL) AND (state = 'waiting') = (settled_by IS NULL)
        AND (state = 'replayed') = (became IS NOT NULL) AND (state = 'discarded') = (discard_reason IS NOT NULL)
    );
UPDATE prooftrail.quarantine SET cleared_at = clock_timestamp() WHERE raw = '' AND detail ~ '^cleared by erasure \d+$';
ALTER TABLE prooftrail.quarantine
    ADD CONSTRAINT quarantine_cleared_is_empty CHECK (cleared_at IS NULL OR (raw = '' AND headers::text = '{}'));
CREATE INDEX quarantine_waiting ON prooftrail.quarantine (id) WHERE state = 'waiting';

COMMENT ON COLUMN prooftrail.quarantine.reason IS 'why it is here, in a word: what the last attempt to replay it came upon';
COMMENT ON COLUMN prooftrail.quarantine.headers IS
    'The record''s headers by lower-case name; json, not jsonb, because a producer may have put anything in them.';
COMMENT ON COLUMN prooftrail.quarantine.attempts IS 'how often it was replayed, the time that it succeeded included';
COMMENT ON COLUMN prooftrail.quarantine.settled_by IS 'the login that replayed or discarded it';
COMMENT ON COLUMN prooftrail.quarantine.became IS 'replayed: tenant, source and id of its events, the first hundred of them';
COMMENT ON COLUMN prooftrail.quarantine.cleared_at IS 'when its bytes and headers went, by an erasure or on purpose';

-- A record goes forward: its reason may change while it waits, then it is replayed or discarded, once. Its bytes and headers
-- stay what they are until they are cleared. What changes it besides the functions below, the owner's hand, is bound by this.
CREATE FUNCTION prooftrail.guard_quarantine() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF (NEW.id, NEW.origin, NEW.received_at) = (OLD.id, OLD.origin, OLD.received_at)
            AND ((NEW.raw, NEW.headers::text) = (OLD.raw, OLD.headers::text)
                OR NEW.cleared_at IS NOT NULL AND OLD.cleared_at IS NULL)
            AND (OLD.cleared_at IS NULL OR NEW.cleared_at = OLD.cleared_at)
            AND (OLD.state = 'waiting'
                OR NEW.cleared_at IS DISTINCT FROM OLD.cleared_at
                    AND (NEW.state, NEW.reason, NEW.attempts, NEW.became) IS NOT DISTINCT FROM
                        (OLD.state, OLD.reason, OLD.attempts, OLD.became)) THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% of a quarantined record that is % is refused: it is replayed or discarded, once', TG_OP, OLD.state
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER forward_only BEFORE UPDATE OR DELETE ON prooftrail.quarantine
    FOR EACH ROW EXECUTE FUNCTION prooftrail.guard_quarantine();
CREATE TRIGGER append_only BEFORE TRUNCATE ON prooftrail.quarantine
    FOR EACH STATEMENT EXECUTE FUNCTION prooftrail.refuse_change();

-- Whose record one is that cannot be read, nobody knows: only a reader of all tenants sees any.
ALTER TABLE prooftrail.quarantine ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON prooftrail.quarantine FOR SELECT TO prooftrail_query USING (prooftrail.may_read('*'));
CREATE POLICY writer ON prooftrail.quarantine TO prooftrail_ingest USING (true) WITH CHECK (true);
CREATE POLICY verifier ON prooftrail.quarantine FOR SELECT TO prooftrail_verify USING (true);
GRANT SELECT ON prooftrail.quarantine TO prooftrail_query;

-- Which of these origins have a record of other bytes than these (by their SHA-256): a producer named two messages alike. What
-- was cleared cannot be told apart any more. The ingest role may ask this, and not read what is in quarantine.
CREATE FUNCTION prooftrail.unlike_in_quarantine(origins text[], digests bytea[]) RETURNS TABLE (origin text, digest bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
    SELECT given.* FROM quarantine JOIN unnest(origins, digests) AS given (origin, digest) USING (origin)
    WHERE cleared_at IS NULL AND sha256(raw) <> given.digest ORDER BY given.*
$$;
GRANT EXECUTE ON FUNCTION prooftrail.unlike_in_quarantine(text[], bytea[]) TO prooftrail_ingest;

-- The three ways on, for the administrator at the command line; no function's role may call them. Each raises 55000 where the
-- record is not waiting (any more).

-- It was read and stored, all of it: `events` are the identities of what it became.
CREATE FUNCTION prooftrail.settle_replayed(of_record bigint, events jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
BEGIN
    UPDATE quarantine SET state = 'replayed', attempts = attempts + 1, became = events,
        settled_at = clock_timestamp(), settled_by = session_user
    WHERE id = of_record AND state = 'waiting' AND cleared_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'record % does not wait in quarantine', of_record USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
END
$$;

-- It was read again and is still no event: why, this time.
CREATE FUNCTION prooftrail.keep_waiting(of_record bigint, of_reason text, of_detail text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
BEGIN
    UPDATE quarantine SET attempts = attempts + 1, reason = of_reason, detail = of_detail
    WHERE id = of_record AND state = 'waiting' AND cleared_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'record % does not wait in quarantine', of_record USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
END
$$;

-- Which hold forbids to clear a record's bytes: one in force whose tenant they or the headers name, and its person if it has one.
CREATE FUNCTION prooftrail.hold_on_record(of_record bigint) RETURNS bigint
LANGUAGE sql STABLE SET search_path = prooftrail, pg_temp AS $$
    SELECT hold.id
    FROM quarantine CROSS JOIN hold
        CROSS JOIN LATERAL (SELECT raw || '\x0a'::bytea || convert_to(headers::text, 'UTF8') AS bytes) AS record
    WHERE quarantine.id = of_record AND released_at IS NULL
        AND (keep_months IS NULL OR received_at > now() - make_interval(months => keep_months))
        AND NOT EXISTS (
            SELECT FROM unnest(ARRAY[hold.tenant, actor_id, target_id]) AS named
            WHERE named IS NOT NULL AND position(convert_to(named, 'UTF8') IN bytes) = 0
                AND NOT EXISTS (SELECT FROM unnest(json_spellings(named)) AS spelling WHERE position(spelling IN bytes) > 0)
        )
    ORDER BY hold.id LIMIT 1
$$;

-- It will never be an event. With `clear` its bytes, its headers and what was said of them go too, at once or later, unless a
-- hold forbids it (PT403).
CREATE FUNCTION prooftrail.discard_quarantined(of_record bigint, why text, clear boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
DECLARE
    held bigint;
BEGIN
    IF clear THEN
        PERFORM pg_advisory_xact_lock(hashtext('prooftrail.hold'));  -- one that is being placed counts
        held := hold_on_record(of_record);
        IF held IS NOT NULL THEN
            RAISE EXCEPTION 'hold % forbids to clear record %', held, of_record USING ERRCODE = 'PT403';
        END IF;
    END IF;
    UPDATE quarantine SET state = 'discarded', discard_reason = why,
        settled_at = clock_timestamp(), settled_by = session_user,
        raw = CASE WHEN clear THEN '' ELSE raw END,
        headers = CASE WHEN clear THEN '{}' ELSE headers END,
        detail = CASE WHEN clear AND cleared_at IS NULL THEN 'cleared when it was discarded' ELSE detail END,
        cleared_at = CASE WHEN clear THEN coalesce(cleared_at, clock_timestamp()) ELSE cleared_at END
    WHERE id = of_record AND (state = 'waiting' OR state = 'discarded' AND clear AND cleared_at IS NULL);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'record % does not wait in quarantine', of_record USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
END
$$;

-- As before, and the headers too: clear the records that hold both the tenant's name and the person's id as JSON strings. Of a
-- record that was replayed as an event of the tenant, the bytes are but a copy, so the person's id anywhere in them is enough.
CREATE OR REPLACE FUNCTION prooftrail.erase_quarantine(of_erasure bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
DECLARE
    begun   erasure := begun_here(of_erasure);
    tenants bytea[] := json_spellings(begun.tenant);
    persons bytea[] := json_spellings(begun.subject_id);
    cleared bigint;
BEGIN
    WITH said AS (
        SELECT id, raw || '\x0a'::bytea || convert_to(headers::text, 'UTF8') AS bytes,
            coalesce(became @> jsonb_build_array(jsonb_build_object('tenant', begun.tenant)), false) AS of_tenant
        FROM quarantine WHERE cleared_at IS NULL
    )
    UPDATE quarantine SET raw = '', headers = '{}', detail = format('cleared by erasure %s', of_erasure),
        cleared_at = clock_timestamp()
    FROM said
    WHERE said.id = quarantine.id
        AND (of_tenant OR EXISTS (SELECT FROM unnest(tenants) AS spelling WHERE position(spelling IN bytes) > 0))
        AND (of_tenant AND position(convert_to(begun.subject_id, 'UTF8') IN bytes) > 0
            OR EXISTS (SELECT FROM unnest(persons) AS spelling WHERE position(spelling IN bytes) > 0));
    GET DIAGNOSTICS cleared = ROW_COUNT;
    UPDATE erasure SET quarantined = cleared WHERE id = of_erasure;
END
$$;
