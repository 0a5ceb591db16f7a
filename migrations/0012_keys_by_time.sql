-- Verification joins the events of a job with the keys of their time; without this, every job would read all keys there are.
-- Keys lie in the order in which they came, which is nearly that of their times: a BRIN finds them for next to nothing.
CREATE INDEX event_key_by_time ON prooftrail.event_key USING brin (time);
