-- What continuous verification said, run by run, and how far it has come.

-- `findings` are the first of those that were found, without the values that events hold; `unchecked` is why something could
-- not be looked at. `history_verified_until`: whatever was stored by then has been derived anew in a complete round since.
CREATE TABLE prooftrail.verification (
    id                     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    began_at               timestamptz NOT NULL,
    ended_at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    entries                bigint      NOT NULL CHECK (entries >= 0),
    found                  bigint      NOT NULL CHECK (found >= 0),
    findings               jsonb       NOT NULL CHECK (jsonb_typeof(findings) = 'array'),
    unchecked              text[]      NOT NULL,
    history_verified_until timestamptz
);
CREATE INDEX verification_by_time ON prooftrail.verification (ended_at);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prooftrail.verification
    FOR EACH STATEMENT EXECUTE FUNCTION prooftrail.refuse_change();

-- Where the next run goes on. Nothing is believed because of it: a log that does not continue what is said here is a finding,
-- and what it hides from one run, the next round over all of history comes to.
CREATE TABLE prooftrail.verification_progress (
    name  text  PRIMARY KEY,
    value jsonb NOT NULL
);

GRANT SELECT, INSERT ON prooftrail.verification TO prooftrail_verify;
GRANT SELECT, INSERT, UPDATE, DELETE ON prooftrail.verification_progress TO prooftrail_verify;
-- For LOCK TABLE alone, which keeps the archive from dropping a month that is being verified: with row-level security forced
-- and no policy for it, the verifier sees no row through the parent; it reads the partitions.
GRANT SELECT ON prooftrail.event TO prooftrail_verify;

-- What /health says about it. A finding counts until a complete round that began after it has not come upon it again.
CREATE FUNCTION prooftrail.verification_verdict()
RETURNS TABLE (verified_at timestamptz, history_verified_until timestamptz, findings bigint, unchecked text[], waiting_since timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
    WITH last_run AS (
        SELECT * FROM verification ORDER BY ended_at DESC LIMIT 1
    ), open_finding AS (
        SELECT DISTINCT finding
        FROM verification CROSS JOIN jsonb_array_elements(verification.findings) AS finding
        WHERE ended_at >= coalesce((SELECT last_run.history_verified_until FROM last_run), '-infinity')
    )
    SELECT last_run.ended_at, last_run.history_verified_until, (SELECT count(*) FROM open_finding),
           coalesce(last_run.unchecked, '{}'), coalesce(last_run.ended_at, applied_at)
    FROM migration LEFT JOIN last_run ON true WHERE name LIKE '%\_verification.sql'
$$;
GRANT EXECUTE ON FUNCTION prooftrail.verification_verdict() TO prooftrail_query;
