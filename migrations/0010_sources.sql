-- What the log says of its sources and of what they do: folded from it afterwards, in its own order, so that ingest pays nothing.
-- Nothing here is evidence; all of it can be derived from the entries again. And the catalogue's rules, which ingest obeys.

-- How far each log is folded.
CREATE TABLE prooftrail.folded (
    tenant           text        PRIMARY KEY REFERENCES prooftrail.tenant (name),
    size             bigint      NOT NULL DEFAULT 0 CHECK (size >= 0),
    gone             bigint      NOT NULL DEFAULT 0,
    unlisted_sources bigint      NOT NULL DEFAULT 0,
    unlisted_actions bigint      NOT NULL DEFAULT 0,
    folded_at        timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN prooftrail.folded.size IS 'entries below this leaf index are folded';
COMMENT ON COLUMN prooftrail.folded.gone IS 'entries whose month had left PostgreSQL before they were folded: nothing is known of them';
COMMENT ON COLUMN prooftrail.folded.unlisted_sources IS 'events of sources for which there was no room';
COMMENT ON COLUMN prooftrail.folded.unlisted_actions IS 'events of actions for which there was no room';

CREATE TABLE prooftrail.source (
    tenant          text           NOT NULL REFERENCES prooftrail.tenant (name),
    source          text           NOT NULL,
    event_count     bigint         NOT NULL,
    first_seen      timestamptz    NOT NULL,
    last_seen       timestamptz    NOT NULL,
    newest          timestamptz    NOT NULL,
    longest_silence interval,
    numbers         int8multirange NOT NULL,
    late            int8multirange NOT NULL,
    late_count      bigint         NOT NULL,
    repeated        int8multirange NOT NULL,
    repeated_count  bigint         NOT NULL,
    highest         bigint,
    tracked_from    bigint         NOT NULL,
    untracked       bigint         NOT NULL,
    PRIMARY KEY (tenant, source)
);
COMMENT ON COLUMN prooftrail.source.last_seen IS 'when its last event was stored; first_seen likewise';
COMMENT ON COLUMN prooftrail.source.newest IS 'the latest time that an event of it carries';
COMMENT ON COLUMN prooftrail.source.longest_silence IS 'between two batches with events of it';
COMMENT ON COLUMN prooftrail.source.numbers IS 'the producer''s sequence numbers that came, from tracked_from on';
COMMENT ON COLUMN prooftrail.source.late IS 'those of them that came in a later batch than a higher one';
COMMENT ON COLUMN prooftrail.source.repeated IS 'those of them that several events carry';
COMMENT ON COLUMN prooftrail.source.tracked_from IS 'above 0 where there were too many gaps: those below are forgotten';
COMMENT ON COLUMN prooftrail.source.untracked IS 'events whose number is below tracked_from, or the highest bigint';

-- The catalogue: categories and their actions. '' is the category of events that have none, which no event can name.
CREATE TABLE prooftrail.action (
    tenant      text        NOT NULL,
    category    text        NOT NULL,
    action      text        NOT NULL,
    event_count bigint      NOT NULL DEFAULT 0,
    first_seen  timestamptz,
    last_seen   timestamptz,
    seeded_at   timestamptz,
    description text,
    PRIMARY KEY (tenant, category, action)
);
COMMENT ON COLUMN prooftrail.action.first_seen IS 'when the first event was stored; NULL where none was yet';
COMMENT ON COLUMN prooftrail.action.seeded_at IS 'when an operator named it; NULL where it is learned from events only';

CREATE TABLE prooftrail.action_schema (
    tenant       text        NOT NULL,
    category     text        NOT NULL,
    action       text        NOT NULL,
    schema       jsonb       NOT NULL,
    on_violation text        NOT NULL CHECK (on_violation IN ('quarantine', 'flag')),
    set_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, category, action),
    FOREIGN KEY (tenant, category, action) REFERENCES prooftrail.action (tenant, category, action)
);
COMMENT ON COLUMN prooftrail.action_schema.schema IS 'JSON Schema (draft 2020-12) of the event as native JSON';

ALTER TABLE prooftrail.folded ENABLE ROW LEVEL SECURITY;
ALTER TABLE prooftrail.source ENABLE ROW LEVEL SECURITY;
ALTER TABLE prooftrail.action ENABLE ROW LEVEL SECURITY;
ALTER TABLE prooftrail.action_schema ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON prooftrail.folded FOR SELECT TO prooftrail_query USING (prooftrail.may_read(tenant));
CREATE POLICY reader ON prooftrail.source FOR SELECT TO prooftrail_query USING (prooftrail.may_read(tenant));
CREATE POLICY reader ON prooftrail.action FOR SELECT TO prooftrail_query USING (prooftrail.may_read(tenant));
CREATE POLICY reader ON prooftrail.action_schema FOR SELECT TO prooftrail_query USING (prooftrail.may_read(tenant));
CREATE POLICY folder ON prooftrail.folded FOR SELECT TO prooftrail_checkpoint USING (true);
CREATE POLICY writer ON prooftrail.action_schema FOR SELECT TO prooftrail_ingest USING (true);
GRANT SELECT ON prooftrail.folded, prooftrail.source, prooftrail.action, prooftrail.action_schema TO prooftrail_query;
GRANT SELECT ON prooftrail.folded TO prooftrail_checkpoint;
GRANT SELECT ON prooftrail.action_schema TO prooftrail_ingest;

-- How many numbers there are in the ranges; a range that ends at the highest bigint has as many as fit.
CREATE FUNCTION prooftrail.count_numbers(ranges int8multirange) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(sum(upper(range) - lower(range)), 0)::bigint FROM unnest(ranges) AS range
$$;

-- The highest of the ranges, at most so many.
CREATE FUNCTION prooftrail.highest_ranges(ranges int8multirange, most integer) RETURNS int8multirange
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN count <= most THEN ranges ELSE ranges * int8multirange(int8range(
        (SELECT lower(range) FROM unnest(ranges) AS range OFFSET count - most LIMIT 1), NULL)) END
    FROM (SELECT count(*) FROM unnest(ranges)) AS counted
$$;

-- For an answer: how many numbers there are, and the lowest ranges, each as its first and last number.
CREATE FUNCTION prooftrail.told(ranges int8multirange, most integer) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = prooftrail, pg_temp AS $$
    SELECT jsonb_build_object('count', count_numbers(ranges), 'ranges', coalesce(
        jsonb_agg(jsonb_build_array(lower(range), upper(range) - 1) ORDER BY range), '[]'))
    FROM (SELECT range FROM unnest(ranges) AS range ORDER BY range LIMIT most) AS lowest
$$;
GRANT EXECUTE ON FUNCTION prooftrail.told(int8multirange, integer), prooftrail.count_numbers(int8multirange) TO prooftrail_query;

-- Fold the next entries of a log, about `most` of them and whole batches; says how many, 0 when there are no more. In one
-- transaction with the position, so that a crash folds nothing twice. A batch is visible only when all before it are, and its
-- events with it, so nothing is passed over. At most 10,000 sources and 10,000 actions of a tenant are listed and 10,000 ranges
-- of a source kept: whoever makes names or numbers up at random fills no more. (The planner, which cannot know how much is new,
-- expects one row everywhere; so it must not loop over rows in rows, nor do a step of the way anew for each of them.)
CREATE FUNCTION prooftrail.fold_log(of_tenant text, most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = prooftrail, pg_temp SET lock_timeout = '2s' SET enable_nestloop = off SET jit = off AS $$
DECLARE
    most_rows constant integer := 10000;
    begins    bigint;
    step      record;
    entries   text;
    found     record;
BEGIN
    INSERT INTO folded (tenant) VALUES (of_tenant) ON CONFLICT DO NOTHING;
    -- From here on nobody else folds this log.
    SELECT size INTO begins FROM folded WHERE tenant = of_tenant FOR UPDATE;
    -- No month is dropped while its entries are being folded.
    LOCK TABLE event IN ACCESS SHARE MODE;
    SELECT max(first_index + event_count) AS size, sum(event_count) AS events,
        min(id) AS first_batch, max(id) AS last_batch, min(min_time) AS since, max(max_time) AS until
    INTO step FROM batch WHERE tenant = of_tenant AND first_index >= begins AND first_index < begins + most;
    IF step.size IS NULL THEN
        RETURN 0;
    END IF;
    -- The partitions are read themselves, because with row-level security forced not even the owner reads through their parent.
    SELECT string_agg(format(
        'SELECT batch_id, source, sequence, coalesce(category, '''') AS category, action, time FROM %I '
        'WHERE tenant = $1 AND batch_id BETWEEN $4 AND $5 AND time BETWEEN $6 AND $7', 'event_' || to_char(month, 'YYYY_MM')),
        ' UNION ALL ')
    INTO entries FROM partition_months()
    WHERE EXISTS (
        SELECT FROM batch WHERE tenant = of_tenant AND first_index >= begins AND first_index < step.size
            AND min_time < (month + interval '1 month') AT TIME ZONE 'UTC' AND max_time >= month::timestamp AT TIME ZONE 'UTC'
    );
    entries := coalesce(entries, 'SELECT NULL::bigint AS batch_id, '''' AS source, NULL::bigint AS sequence, '''' AS category, '
                                 ''''' AS action, NULL::timestamptz AS time WHERE false');
    EXECUTE format($fold$
        WITH entry AS MATERIALIZED (
            SELECT stored.*, batch.first_index, batch.received_at
            FROM (%s) AS stored JOIN batch ON batch.id = batch_id
            WHERE batch.tenant = $1 AND batch.first_index >= $2 AND batch.first_index < $3
        ), produced AS (
            SELECT * FROM entry WHERE source <> 'prooftrail'
        ), known AS MATERIALIZED (
            SELECT source AS known_source, numbers AS known_numbers, highest AS known_highest, last_seen AS known_seen,
                tracked_from AS known_from
            FROM source WHERE tenant = $1
        ),
        -- Each source, batch by batch: what was its highest number before, and for how long had nothing come?
        arrival AS (
            SELECT source, first_index, received_at, count(*) AS events, max(time) AS newest, max(sequence) AS highest
            FROM produced GROUP BY source, first_index, received_at
        ), arrived AS MATERIALIZED (
            SELECT arrival.*, known_source, greatest(known_highest, max(highest) OVER earlier) AS highest_before,
                received_at - coalesce(lag(received_at) OVER in_order, known_seen) AS silence
            FROM arrival LEFT JOIN known ON known_source = source
            WINDOW in_order AS (PARTITION BY source ORDER BY first_index),
                earlier AS (in_order ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        ),
        -- Each number once, in the batch with which it came first.
        number AS (
            SELECT source, sequence, min(first_index) AS first_index, count(*) AS events
            FROM produced WHERE sequence IS NOT NULL GROUP BY source, sequence
        ), tracked AS (
            SELECT source, number.events, sequence < highest_before AS behind,
                CASE WHEN sequence >= coalesce(known_from, 0) AND sequence < 9223372036854775807
                THEN int8range(sequence, sequence + 1) END AS number
            FROM number JOIN arrived USING (source, first_index) LEFT JOIN known ON known.known_source = source
        ), numbers AS MATERIALIZED (
            SELECT source, coalesce(range_agg(number), '{}') AS came,
                coalesce(range_agg(number) FILTER (WHERE behind), '{}') AS behind,
                coalesce(range_agg(number) FILTER (WHERE events > 1), '{}') AS twice,
                coalesce(sum(events) FILTER (WHERE number IS NOT NULL), 0) AS tracked,
                coalesce(sum(events) FILTER (WHERE number IS NULL), 0) AS untracked
            FROM tracked GROUP BY source
        ), added AS MATERIALIZED (
            SELECT source, sum(events) AS events, min(received_at) AS first_seen, max(received_at) AS last_seen,
                max(newest) AS newest, max(silence) AS silence, max(highest) AS highest,
                known_source IS NOT NULL AS listed,
                row_number() OVER (PARTITION BY known_source IS NULL ORDER BY min(first_index), source) AS place
            FROM arrived GROUP BY source, known_source
        ), merged AS MATERIALIZED (
            SELECT added.*, coalesce(numbers.tracked, 0) AS tracked, coalesce(numbers.untracked, 0) AS more_untracked,
                coalesce(known_numbers, '{}') + coalesce(came, '{}') AS numbers,
                coalesce(came, '{}') - coalesce(known_numbers, '{}') AS fresh,
                coalesce(behind, '{}') - coalesce(known_numbers, '{}') AS late,
                coalesce(came, '{}') * coalesce(known_numbers, '{}') + coalesce(twice, '{}') AS repeated
            FROM added LEFT JOIN numbers USING (source) LEFT JOIN known ON known_source = source
        ), kept AS MATERIALIZED (
            SELECT merged.*, highest_ranges(numbers, $8) AS kept FROM merged
        ), of_sources AS (
            INSERT INTO source AS stored
            SELECT $1, source, events, first_seen, last_seen, newest, silence, kept, highest_ranges(late, $8), count_numbers(late),
                highest_ranges(repeated, $8), tracked - count_numbers(fresh), highest,
                CASE WHEN kept = numbers THEN 0 ELSE lower(kept) END, more_untracked
            FROM kept
            WHERE listed OR place <= $8 - (SELECT count(*) FROM known)
            ON CONFLICT (tenant, source) DO UPDATE SET
                event_count = stored.event_count + EXCLUDED.event_count,
                last_seen = EXCLUDED.last_seen,
                newest = greatest(stored.newest, EXCLUDED.newest),
                longest_silence = greatest(stored.longest_silence, EXCLUDED.longest_silence),
                numbers = EXCLUDED.numbers,
                late = highest_ranges(stored.late + EXCLUDED.late, $8),
                late_count = stored.late_count + EXCLUDED.late_count,
                repeated = highest_ranges(stored.repeated + EXCLUDED.repeated, $8),
                repeated_count = stored.repeated_count + EXCLUDED.repeated_count,
                highest = greatest(stored.highest, EXCLUDED.highest),
                tracked_from = greatest(stored.tracked_from, EXCLUDED.tracked_from),
                untracked = stored.untracked + EXCLUDED.untracked
            RETURNING source
        ),
        done AS MATERIALIZED (
            SELECT category, action, count(*) AS events, min(first_index) AS first_index,
                min(received_at) AS first_seen, max(received_at) AS last_seen
            FROM produced GROUP BY category, action
        ), ranked AS (
            SELECT done.*, listed.action IS NOT NULL AS listed,
                row_number() OVER (PARTITION BY listed.action IS NULL ORDER BY first_index, done.category, done.action) AS place
            FROM done LEFT JOIN action AS listed
                ON listed.tenant = $1 AND listed.category = done.category AND listed.action = done.action
        ), of_actions AS (
            INSERT INTO action AS stored (tenant, category, action, event_count, first_seen, last_seen)
            SELECT $1, category, action, events, first_seen, last_seen FROM ranked
            WHERE listed OR place <= $8 - (SELECT count(*) FROM action WHERE tenant = $1)
            ON CONFLICT (tenant, category, action) DO UPDATE SET
                event_count = stored.event_count + EXCLUDED.event_count,
                first_seen = coalesce(stored.first_seen, EXCLUDED.first_seen),
                last_seen = EXCLUDED.last_seen
            RETURNING category, action
        )
        SELECT (SELECT count(*) FROM entry) AS entries,
            (SELECT coalesce(sum(events), 0) FROM added WHERE source NOT IN (SELECT source FROM of_sources)) AS unlisted_sources,
            (SELECT coalesce(sum(events), 0) FROM done WHERE (category, action) NOT IN (SELECT category, action FROM of_actions))
                AS unlisted_actions
        $fold$, entries)
    INTO found
    USING of_tenant, begins, step.size, step.first_batch, step.last_batch, step.since, step.until, most_rows;
    UPDATE folded SET size = step.size, gone = gone + step.events - found.entries,
        unlisted_sources = folded.unlisted_sources + found.unlisted_sources,
        unlisted_actions = folded.unlisted_actions + found.unlisted_actions, folded_at = clock_timestamp()
    WHERE tenant = of_tenant;
    RETURN step.size - begins;
END
$$;
GRANT EXECUTE ON FUNCTION prooftrail.fold_log(text, integer) TO prooftrail_checkpoint;
