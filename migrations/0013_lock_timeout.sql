-- Whoever waits for an answer is told to come again, and a queue's batch is, before its function is killed. Not shorter: a
-- batch of thousands holds its keys for a second or two, and another with the same events waits for it.
DO $$
BEGIN
    EXECUTE format('ALTER ROLE prooftrail_ingest IN DATABASE %I SET lock_timeout = %L', current_database(), '5s');
END
$$;
