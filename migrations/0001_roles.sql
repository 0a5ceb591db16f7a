-- Who may do what. The three functions log in as these roles; none of them ever owns an object.
-- Roles belong to the whole server, so another database of it may have made them already, perhaps at this very moment.
CREATE SCHEMA IF NOT EXISTS prooftrail;

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['prooftrail_ingest', 'prooftrail_query', 'prooftrail_archive'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I LOGIN NOINHERIT', wanted);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END LOOP;
END
$$;

REVOKE ALL ON SCHEMA prooftrail FROM PUBLIC;
GRANT USAGE ON SCHEMA prooftrail TO prooftrail_ingest, prooftrail_query, prooftrail_archive;
-- A new function is callable by everybody unless this says otherwise.
ALTER DEFAULT PRIVILEGES IN SCHEMA prooftrail REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
