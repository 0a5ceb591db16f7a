-- Events over HTTP: keys that write, and what is looked up to answer with receipts.

-- A writer sends events, of its tenant or (an operator's) of every one, and reads nothing. The other kinds do not write.
ALTER TABLE prooftrail.api_key
    DROP CONSTRAINT api_key_role_check,
    ADD CONSTRAINT api_key_role_check CHECK (role IN ('reader', 'privacy', 'writer'));

-- Like the query role: about a key that it was shown; it cannot list keys.
GRANT EXECUTE ON FUNCTION prooftrail.authenticate(bytea) TO prooftrail_ingest;

-- Where the original of a duplicate lies. Of an event this adds its batch and position to what `event_key` tells the role anyway.
GRANT SELECT (tenant, time, id, source, batch_id, position) ON prooftrail.event TO prooftrail_ingest;
GRANT SELECT (first_index) ON prooftrail.batch TO prooftrail_ingest;
CREATE POLICY writer ON prooftrail.event FOR SELECT TO prooftrail_ingest USING (true);
