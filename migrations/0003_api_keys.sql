-- Who asks. A key belongs to one tenant, or (tenant NULL) to an operator of all. Only its SHA-256 is kept: the key is 256
-- random bits, so there is nothing to guess and no salt is needed.
CREATE TABLE prooftrail.api_key (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash       bytea       NOT NULL CONSTRAINT api_key_hash_is_unique UNIQUE CHECK (length(hash) = 32),
    hint       text        NOT NULL,
    tenant     text,
    label      text        NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at timestamptz
);

-- The query role can ask about a key that it was shown, and cannot list keys.
CREATE FUNCTION prooftrail.authenticate(key_hash bytea) RETURNS TABLE (tenant text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = prooftrail, pg_temp AS $$
    SELECT coalesce(api_key.tenant, '*') FROM api_key WHERE hash = key_hash AND revoked_at IS NULL
$$;
GRANT EXECUTE ON FUNCTION prooftrail.authenticate(bytea) TO prooftrail_query;
