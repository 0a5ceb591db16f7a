-- Verification joins the events of a job with the keys of their time; without this, every job would read all keys there are.
-- Keys lie in the order in which they came, which is nearly that of their times, so a BRIN finds them at little cost. (Ingest
-- waits while it is built: about a second for some millions of keys.)
CREATE INDEX event_key_by_time ON prooftrail.event_key USING brin (time) WITH (autosummarize = on);
