-- Erasure: one person's values leave the log, and every proof stays what it was; holds, which forbid it; and the second role
-- that it takes. What an erasure may do is decided here, whoever asks.

-- A privacy key may ask for an erasure, and another one approves it. Either kind reads.
ALTER TABLE prooftrail.api_key ADD COLUMN role text NOT NULL DEFAULT 'reader' CHECK (role IN ('reader', 'privacy'));
DROP FUNCTION prooftrail.authenticate(bytea);
CREATE FUNCTION prooftrail.authenticate(key_hash bytea) RETURNS TABLE (id bigint, tenant text, label text, role text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
    SELECT api_key.id, coalesce(api_key.tenant, '*'), api_key.label, api_key.role
    FROM api_key WHERE hash = key_hash AND revoked_at IS NULL
$$;
GRANT EXECUTE ON FUNCTION prooftrail.authenticate(bytea) TO prooftrail_query;

-- Without `keep_months` it forbids erasing the events that it matches; with it, it is a duty to keep them while they are younger
-- than that. An actor or target that is NULL matches every one.
CREATE TABLE prooftrail.hold (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant      text        NOT NULL,
    actor_id    text,
    target_id   text,
    keep_months integer     CHECK (keep_months > 0),
    reason      text        NOT NULL CHECK (reason <> ''),
    placed_by   text        NOT NULL,
    placed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    released_at timestamptz
);

-- requested (by a privacy key) -> approved (by another, or ordered by the administrator) -> running (the values are gone from
-- PostgreSQL and the log says so; objects are left) -> done. `subject_id` is the person, and gone at the end.
CREATE TABLE prooftrail.erasure (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant       text        NOT NULL,
    part         text        NOT NULL CHECK (part IN ('actor', 'target')),
    subject_id   text,
    reason       text        NOT NULL CHECK (reason <> ''),
    state        text        NOT NULL DEFAULT 'requested'
                             CHECK (state IN ('requested', 'approved', 'running', 'done', 'refused')),
    requested_by bigint      REFERENCES prooftrail.api_key (id),
    approved_by  bigint      REFERENCES prooftrail.api_key (id) CHECK (approved_by <> requested_by),
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    approved_at  timestamptz,
    begun_at     timestamptz,
    finished_at  timestamptz,
    refusal      text,
    entries      bigint      NOT NULL DEFAULT 0,
    quarantined  bigint      NOT NULL DEFAULT 0,
    begun_in     xid8,
    months       date[]      NOT NULL DEFAULT '{}',
    rewritten_at timestamptz,
    CHECK ((state IN ('done', 'refused')) = (subject_id IS NULL)),
    CHECK ((state = 'refused') = (refusal IS NOT NULL))
);
COMMENT ON COLUMN prooftrail.erasure.requested_by IS 'the key that asked; NULL for the administrator at the command line';
COMMENT ON COLUMN prooftrail.erasure.begun_in IS 'the one transaction that may erase rows for it';
COMMENT ON COLUMN prooftrail.erasure.months IS 'whose partitions held the values';
COMMENT ON COLUMN prooftrail.erasure.rewritten_at IS 'when the pages that held the values were rewritten (VACUUM FULL)';
CREATE UNIQUE INDEX erasure_is_asked_for_once ON prooftrail.erasure (tenant, part, subject_id) WHERE subject_id IS NOT NULL;

-- What an erasure has to do with an object: nothing, write a version without the values, or remove what was never the place to read.
CREATE TABLE prooftrail.erasure_segment (
    erasure_id  bigint         NOT NULL REFERENCES prooftrail.erasure (id),
    segment_id  bigint         NOT NULL REFERENCES prooftrail.archive_segment (id),
    work        text           NOT NULL CHECK (work IN ('none', 'rewrite', 'remove')),
    entries     int8multirange NOT NULL DEFAULT '{}',
    persons     jsonb,
    replaced_at timestamptz,
    done_at     timestamptz,
    PRIMARY KEY (erasure_id, segment_id)
);
COMMENT ON COLUMN prooftrail.erasure_segment.entries IS 'leaf indexes of those that the object holds';
COMMENT ON COLUMN prooftrail.erasure_segment.persons IS 'actor, target and newest time of those, for holds to be compared with; gone at the end';

ALTER TABLE prooftrail.hold ENABLE ROW LEVEL SECURITY;
ALTER TABLE prooftrail.erasure ENABLE ROW LEVEL SECURITY;
ALTER TABLE prooftrail.erasure_segment ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON prooftrail.erasure FOR SELECT TO prooftrail_query USING (prooftrail.may_read(tenant));
CREATE POLICY archivist ON prooftrail.erasure FOR SELECT TO prooftrail_archive USING (true);
CREATE POLICY archivist ON prooftrail.erasure_segment FOR SELECT TO prooftrail_archive USING (true);
CREATE POLICY verifier ON prooftrail.erasure FOR SELECT TO prooftrail_verify USING (true);
GRANT SELECT ON prooftrail.erasure TO prooftrail_query, prooftrail_archive, prooftrail_verify;
GRANT SELECT ON prooftrail.erasure_segment TO prooftrail_archive;

-- Nobody can tell any more what an erased event said: its key stays, so that it does not come back, its digest goes.
ALTER TABLE prooftrail.event_key ALTER COLUMN digest DROP NOT NULL;

-- Reads name the persons that were asked about. (Rows of other sources are not in it and do not pay for it.)
CREATE INDEX event_of_own ON prooftrail.event (tenant, time) WHERE source = 'prooftrail';

-- As before, but for the transaction that erases: it has named itself, and acts as the owner, which only a function below does.
CREATE OR REPLACE FUNCTION prooftrail.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND TG_TABLE_NAME ~ '^event_(key|\d{4}_\d\d)$'
        AND current_setting('prooftrail.erasing', true) = pg_current_xact_id()::text
        AND current_user = (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = TG_RELID) THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% on %.% is refused: the log is append-only', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;

-- As before; besides, what never became the place to read may be abandoned, and an erasure may put another object in the place of
-- an archived one.
ALTER TABLE prooftrail.archive_segment
    DROP CONSTRAINT archive_segment_state_check,
    ADD CONSTRAINT archive_segment_state_check CHECK (state IN ('planned', 'verified', 'archived', 'abandoned')),
    DROP CONSTRAINT archive_segment_says_what_was_verified,
    ADD CONSTRAINT archive_segment_says_what_was_verified CHECK (
        state IN ('planned', 'abandoned')
        OR (object_bytes IS NOT NULL AND object_sha256 IS NOT NULL AND verified_at IS NOT NULL)
    );
CREATE OR REPLACE FUNCTION prooftrail.guard_segment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF (NEW.id, NEW.tenant, NEW.month, NEW.batches, NEW.event_count) = (OLD.id, OLD.tenant, OLD.month, OLD.batches, OLD.event_count)
            AND ((OLD.state, NEW.state) IN (('planned', 'verified'), ('verified', 'archived'))
                OR (OLD.state, NEW.state) IN (('planned', 'abandoned'), ('verified', 'abandoned'), ('archived', 'archived'))
                AND current_setting('prooftrail.erasing', true) = pg_current_xact_id()::text) THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% of a segment that is % is refused: the manifest only goes forward', TG_OP,
        CASE TG_OP WHEN 'TRUNCATE' THEN 'anything' ELSE OLD.state END USING ERRCODE = 'insufficient_privilege';
END
$$;

-- Placing a hold and beginning an erasure wait for each other, so that neither slips past the other's check.
CREATE FUNCTION prooftrail.guard_hold() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
DECLARE
    begun erasure;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('prooftrail.hold'));
    SELECT * INTO begun FROM erasure
    WHERE state = 'running' AND tenant = NEW.tenant AND subject_id = CASE part WHEN 'actor' THEN NEW.actor_id ELSE NEW.target_id END;
    IF FOUND THEN
        RAISE EXCEPTION 'erasure % of these events has begun at %: nothing is left to hold', begun.id, begun.begun_at
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER guard BEFORE INSERT ON prooftrail.hold FOR EACH ROW EXECUTE FUNCTION prooftrail.guard_hold();

-- Why the holds of a tenant forbid to erase events of these actors, targets and times; NULL where they do not.
CREATE FUNCTION prooftrail.refusal(of_tenant text, actors text[], targets text[], times timestamptz[]) RETURNS text
LANGUAGE sql STABLE SET search_path = prooftrail, pg_temp AS $$
    SELECT CASE WHEN keep_months IS NULL
        THEN format('hold %s of %s forbids it until it is released: %s', id, to_char(placed_at, 'YYYY-MM-DD'), reason)
        ELSE format('hold %s of %s, a duty to keep events for %s months, forbids it until %s: %s', id,
            to_char(placed_at, 'YYYY-MM-DD'), keep_months, to_char(max(time) + make_interval(months => keep_months), 'YYYY-MM-DD'), reason)
        END
    FROM unnest(actors, targets, times) AS event (actor, target, time) JOIN hold
        ON tenant = of_tenant AND released_at IS NULL
        AND (actor_id IS NULL OR actor_id = actor) AND (target_id IS NULL OR target_id = target)
        AND (keep_months IS NULL OR time > now() - make_interval(months => keep_months))
    GROUP BY hold.id
    ORDER BY keep_months IS NULL DESC, max(time) + make_interval(months => coalesce(keep_months, 0)) DESC LIMIT 1
$$;

-- The key that may ask for an erasure in a tenant, or approve one.
CREATE FUNCTION prooftrail.privacy_key(key_hash bytea, of_tenant text) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
DECLARE
    found_id bigint;
BEGIN
    SELECT id INTO found_id FROM api_key
    WHERE hash = key_hash AND revoked_at IS NULL AND role = 'privacy' AND of_tenant = coalesce(tenant, of_tenant);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this takes a key with the role privacy in tenant %', of_tenant USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN found_id;
END
$$;

CREATE FUNCTION prooftrail.request_erasure(key_hash bytea, of_tenant text, of_part text, subject text, why text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
    INSERT INTO erasure (tenant, part, subject_id, reason, requested_by)
    VALUES (of_tenant, of_part, subject, why, privacy_key(key_hash, of_tenant)) RETURNING id
$$;

CREATE FUNCTION prooftrail.approve_erasure(key_hash bytea, of_erasure bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
DECLARE
    asked erasure;
    key   bigint;
BEGIN
    SELECT * INTO asked FROM erasure WHERE id = of_erasure FOR UPDATE;
    key := privacy_key(key_hash, asked.tenant);
    IF asked.state <> 'requested' THEN
        RAISE EXCEPTION 'erasure % is % already', of_erasure, asked.state USING ERRCODE = 'object_not_in_prerequisite_state';
    ELSIF key = asked.requested_by THEN
        RAISE EXCEPTION 'erasure % was asked for with this key: it takes another one', of_erasure
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    UPDATE erasure SET state = 'approved', approved_by = key, approved_at = clock_timestamp() WHERE id = of_erasure;
END
$$;
GRANT EXECUTE ON FUNCTION prooftrail.request_erasure(bytea, text, text, text, text), prooftrail.approve_erasure(bytea, bigint)
    TO prooftrail_query;

-- From here on: what executes an approved erasure calls, in this order.

-- What an archived object holds of the person.
CREATE FUNCTION prooftrail.survey_segment(of_erasure bigint, of_segment bigint, indexes int8multirange, of_persons jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
    INSERT INTO erasure_segment (erasure_id, segment_id, work, entries, persons, done_at)
    SELECT id, of_segment, CASE WHEN isempty(indexes) THEN 'none' ELSE 'rewrite' END, indexes, of_persons,
        CASE WHEN isempty(indexes) THEN clock_timestamp() END
    FROM erasure WHERE id = of_erasure AND state = 'approved'
    ON CONFLICT DO NOTHING
$$;

-- Begin: from here to the end of the transaction no segment is planned, no month dropped and no hold placed, and this
-- transaction may erase rows. Says the segments that must be surveyed first, none when it has begun.
CREATE FUNCTION prooftrail.begin_erasure(of_erasure bigint) RETURNS SETOF bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
DECLARE
    asked     erasure;
    unknown   bigint[];
    forbidden text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('prooftrail.archive_segment'));
    LOCK TABLE prooftrail.event IN ACCESS SHARE MODE;
    PERFORM pg_advisory_xact_lock(hashtext('prooftrail.hold'));
    SELECT * INTO asked FROM erasure WHERE id = of_erasure AND state = 'approved' FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'erasure % is not approved, or has begun', of_erasure USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN QUERY SELECT id FROM archive_segment
        WHERE tenant IN (asked.tenant, '_prooftrail') AND state = 'archived'
            AND NOT EXISTS (SELECT FROM erasure_segment WHERE erasure_id = of_erasure AND segment_id = archive_segment.id)
        ORDER BY id;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT refusal(asked.tenant, array_agg(person ->> 0), array_agg(person ->> 1), array_agg((person ->> 2)::timestamptz))
    INTO forbidden FROM erasure_segment, jsonb_array_elements(persons) AS person WHERE erasure_id = of_erasure;
    IF forbidden IS NOT NULL THEN
        RAISE EXCEPTION '%', forbidden USING ERRCODE = 'PT403';
    END IF;
    UPDATE erasure SET state = 'running', begun_at = clock_timestamp(), begun_in = pg_current_xact_id(),
        entries = (SELECT coalesce(sum(upper(range) - lower(range)), 0)
                   FROM erasure_segment, unnest(erasure_segment.entries) AS range WHERE erasure_id = of_erasure)
    WHERE id = of_erasure;
END
$$;

-- The erasure that this transaction has begun.
CREATE FUNCTION prooftrail.begun_here(of_erasure bigint) RETURNS prooftrail.erasure
LANGUAGE plpgsql STABLE SET search_path = prooftrail, pg_temp AS $$
DECLARE
    begun erasure;
BEGIN
    SELECT * INTO begun FROM erasure WHERE id = of_erasure AND state = 'running' AND begun_in = pg_current_xact_id_if_assigned();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'erasure % was not begun by this transaction', of_erasure USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN begun;
END
$$;

-- Erase some entries of one month and tenant: the person's id, the private part, their salts, and the digest of the key. What the
-- leaf needs of them stays as `commitments`, in the same order. Refuses where a hold forbids it (PT403), where a row is not the
-- person's, and while another is writing the rows to an object (55P03); an object that was written, but never was the place to
-- read, is abandoned.
CREATE FUNCTION prooftrail.erase_entries(
    of_erasure bigint, of_month date, of_tenant text, batch_ids bigint[], positions integer[], commitments bytea[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
DECLARE
    begun     erasure := begun_here(of_erasure);
    partition text := 'event_' || to_char(of_month, 'YYYY_MM');
    -- Our own events name the person in what was asked; of a producer's, it is who did it, or to whom.
    person    text := format('source <> ''prooftrail'' AND %I = $4', begun.part || '_id');
    asked     text := 'source = ''prooftrail'' AND prooftrail.asks_about(metadata, $5, $4)';
    forbidden text;
    erased    bigint;
    segment   bigint;
BEGIN
    IF of_tenant NOT IN (begun.tenant, '_prooftrail') THEN
        RAISE EXCEPTION 'erasure % is not of tenant %', of_erasure, of_tenant USING ERRCODE = 'insufficient_privilege';
    END IF;
    EXECUTE format(
        'SELECT prooftrail.refusal($1, array_agg(actor_id), array_agg(target_id), array_agg(time)) FROM prooftrail.%I '
        'WHERE tenant = $1 AND (batch_id, position) IN (SELECT * FROM unnest($2, $3))', partition)
        INTO forbidden USING of_tenant, batch_ids, positions;
    IF forbidden IS NOT NULL THEN
        RAISE EXCEPTION '%', forbidden USING ERRCODE = 'PT403';
    END IF;
    PERFORM set_config('prooftrail.erasing', pg_current_xact_id()::text, true);
    EXECUTE format(
        'WITH erased AS ('
        '    UPDATE prooftrail.%1$I AS event SET commitments = chosen.commitments,'
        '        salt = CASE WHEN source = ''prooftrail'' THEN substr(salt, 1, 32) || zeros WHEN %2$L = ''actor''
                     THEN zeros || substr(salt, 17, 16) || zeros ELSE substr(salt, 1, 16) || zeros || zeros END,'
        '        %3$I = CASE WHEN source = ''prooftrail'' THEN %3$I END,'
        '        actor_name = NULL, actor_ip = NULL, actor_user_agent = NULL, actor_session_id = NULL, actor_roles = NULL,'
        '        target_name = NULL, message = NULL, before = NULL, after = NULL, error_code = NULL, error_message = NULL,'
        '        error_stack_trace = NULL, duration_ms = NULL, request_id = NULL, trace_id = NULL, metadata = NULL'
        '    FROM unnest($2, $3, $6) AS chosen (batch_id, position, commitments), decode(repeat(''00'', 16), ''hex'') AS zeros'
        '    WHERE tenant = $1 AND event.batch_id = chosen.batch_id AND event.position = chosen.position AND (%4$s OR %5$s)'
        '    RETURNING id, source'
        '), forgotten AS ('
        '    UPDATE prooftrail.event_key SET digest = NULL FROM erased'
        '    WHERE event_key.tenant = $1 AND event_key.id = erased.id AND event_key.source = erased.source'
        ') SELECT count(*) FROM erased', partition, begun.part, begun.part || '_id', person, asked)
        INTO erased USING of_tenant, batch_ids, positions, begun.subject_id, begun.part, commitments;
    IF erased <> cardinality(batch_ids) THEN
        RAISE EXCEPTION '% of % entries are not of the person of erasure %', cardinality(batch_ids) - erased,
            cardinality(batch_ids), of_erasure USING ERRCODE = 'check_violation';
    END IF;
    FOR segment IN
        SELECT id FROM archive_segment
        WHERE tenant = of_tenant AND month = of_month AND state IN ('planned', 'verified')
            AND EXISTS (SELECT FROM unnest(batch_ids) AS batch WHERE batches @> batch)
    LOOP
        IF NOT pg_try_advisory_xact_lock(hashtextextended('prooftrail.archive_segment', segment)) THEN
            RAISE EXCEPTION 'a run of the archive is at segment %: come again', segment USING ERRCODE = 'lock_not_available';
        END IF;
        UPDATE archive_segment SET state = 'abandoned' WHERE id = segment;
        INSERT INTO erasure_segment (erasure_id, segment_id, work) VALUES (of_erasure, segment, 'remove');
    END LOOP;
    PERFORM set_config('prooftrail.erasing', '', true);
    UPDATE erasure SET entries = entries + erased,
        months = CASE WHEN of_month = ANY (months) THEN months ELSE months || of_month END
    WHERE id = of_erasure;
END
$$;

-- Whether the metadata of one of our own events says that it was asked about a person: an object in it, at any depth, has the
-- person's id under the name that filters have.
CREATE FUNCTION prooftrail.asks_about(metadata jsonb, part text, subject text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(jsonb_path_exists(metadata, CASE part
        WHEN 'actor' THEN '$.** ? (@.actor == $id || @.actor_id == $id)'::jsonpath
        ELSE '$.** ? (@.target == $id || @.target_id == $id)'::jsonpath END, jsonb_build_object('id', subject)), false)
$$;
GRANT EXECUTE ON FUNCTION prooftrail.asks_about(jsonb, text, text) TO prooftrail_archive;

-- How a text may be spelled as a JSON string: as it is, with what is not ASCII escaped (in digits of either case), and each of
-- these once more inside another string.
CREATE FUNCTION prooftrail.json_spellings(of_text text) RETURNS bytea[]
LANGUAGE sql IMMUTABLE SET search_path = prooftrail, pg_temp AS $$
    WITH character AS (
        SELECT place, letter, ascii(letter) AS code
        FROM regexp_split_to_table(to_json(of_text)::text, '') WITH ORDINALITY AS split (letter, place)
    ), escaped AS (
        SELECT place, letter, CASE
            WHEN code < 128 THEN letter
            WHEN code < 65536 THEN '\u' || lpad(to_hex(code), 4, '0')
            ELSE '\u' || to_hex(55296 + (code - 65536) / 1024) || '\u' || to_hex(56320 + (code - 65536) % 1024) END AS lower
        FROM character
    ), spelling AS (
        SELECT unnest(ARRAY[
            string_agg(letter, '' ORDER BY place),
            string_agg(lower, '' ORDER BY place),
            string_agg(CASE WHEN lower = letter THEN letter ELSE replace(upper(lower), '\U', '\u') END, '' ORDER BY place)
        ]) AS text FROM escaped
    )
    SELECT array_agg(DISTINCT convert_to(form, 'UTF8'))
    FROM spelling, LATERAL unnest(ARRAY[text, replace(replace(text, '\', '\\'), '"', '\"')]) AS form
$$;

-- Clear the quarantined records that hold both the tenant's name and the person's id as JSON strings.
CREATE FUNCTION prooftrail.erase_quarantine(of_erasure bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
DECLARE
    begun   erasure := begun_here(of_erasure);
    cleared bigint;
BEGIN
    UPDATE quarantine SET raw = '', detail = format('cleared by erasure %s', of_erasure)
    WHERE EXISTS (SELECT FROM unnest(json_spellings(begun.tenant)) AS spelling WHERE position(spelling IN raw) > 0)
        AND EXISTS (SELECT FROM unnest(json_spellings(begun.subject_id)) AS spelling WHERE position(spelling IN raw) > 0);
    GET DIAGNOSTICS cleared = ROW_COUNT;
    UPDATE erasure SET quarantined = cleared WHERE id = of_erasure;
END
$$;

-- The work on an object that a running erasure has left.
CREATE FUNCTION prooftrail.work_left(of_erasure bigint, of_segment bigint, of_work text) RETURNS prooftrail.erasure
LANGUAGE plpgsql STABLE SET search_path = prooftrail, pg_temp AS $$
DECLARE
    running erasure;
BEGIN
    SELECT erasure.* INTO running FROM erasure JOIN erasure_segment ON erasure_id = id
    WHERE id = of_erasure AND state = 'running' AND segment_id = of_segment AND done_at IS NULL AND work = of_work;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'erasure % has nothing to % in segment %', of_erasure, of_work, of_segment
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN running;
END
$$;

-- Make the version without the values the one to read, and forget the digests of what was erased in it.
CREATE FUNCTION prooftrail.replace_object(
    of_erasure bigint, of_segment bigint, bytes bigint, sha256 bytea, version text, ids text[], sources text[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
DECLARE
    running erasure := work_left(of_erasure, of_segment, 'rewrite');
BEGIN
    PERFORM set_config('prooftrail.erasing', pg_current_xact_id()::text, true);
    UPDATE archive_segment SET object_bytes = bytes, object_sha256 = sha256, object_version = version WHERE id = of_segment;
    UPDATE erasure_segment SET replaced_at = clock_timestamp() WHERE erasure_id = of_erasure AND segment_id = of_segment;
    UPDATE event_key SET digest = NULL
    FROM unnest(ids, sources) AS erased (id, source), archive_segment AS segment
    WHERE segment.id = of_segment AND event_key.tenant = segment.tenant AND event_key.id = erased.id
        AND event_key.source = erased.source;
    PERFORM set_config('prooftrail.erasing', '', true);
END
$$;

-- No version of the object has the values any more.
CREATE FUNCTION prooftrail.finish_segment(of_erasure bigint, of_segment bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
    UPDATE erasure_segment SET done_at = clock_timestamp(), persons = NULL
    WHERE erasure_id = of_erasure AND segment_id = of_segment AND done_at IS NULL
        AND EXISTS (SELECT FROM erasure WHERE id = of_erasure AND state = 'running')
$$;

-- The end, where no object is left: the record forgets the person. Says whether it is.
CREATE FUNCTION prooftrail.finish_erasure(of_erasure bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
DECLARE
    running erasure;
BEGIN
    SELECT * INTO running FROM erasure WHERE id = of_erasure AND state = 'running' FOR UPDATE;
    IF NOT FOUND OR EXISTS (SELECT FROM erasure_segment WHERE erasure_id = of_erasure AND done_at IS NULL) THEN
        RETURN false;
    END IF;
    UPDATE hold SET actor_id = '(erased)' WHERE tenant = running.tenant AND released_at IS NOT NULL
        AND running.part = 'actor' AND actor_id = running.subject_id;
    UPDATE hold SET target_id = '(erased)' WHERE tenant = running.tenant AND released_at IS NOT NULL
        AND running.part = 'target' AND target_id = running.subject_id;
    UPDATE erasure SET state = 'done', subject_id = NULL, finished_at = clock_timestamp() WHERE id = of_erasure;
    UPDATE erasure_segment SET persons = NULL WHERE erasure_id = of_erasure;
    RETURN true;
END
$$;

-- It will not be done, and nothing was changed: says why, and forgets the person too.
CREATE FUNCTION prooftrail.refuse_erasure(of_erasure bigint, why text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
BEGIN
    UPDATE erasure SET state = 'refused', refusal = why, subject_id = NULL, finished_at = clock_timestamp()
    WHERE id = of_erasure AND state IN ('requested', 'approved');
    IF FOUND THEN
        UPDATE erasure_segment SET persons = NULL, done_at = clock_timestamp() WHERE erasure_id = of_erasure;
    END IF;
END
$$;

GRANT EXECUTE ON FUNCTION
    prooftrail.survey_segment(bigint, bigint, int8multirange, jsonb),
    prooftrail.begin_erasure(bigint),
    prooftrail.erase_entries(bigint, date, text, bigint[], integer[], bytea[]),
    prooftrail.erase_quarantine(bigint),
    prooftrail.replace_object(bigint, bigint, bigint, bytea, text, text[], text[]),
    prooftrail.finish_segment(bigint, bigint),
    prooftrail.finish_erasure(bigint),
    prooftrail.refuse_erasure(bigint, text)
TO prooftrail_archive;
