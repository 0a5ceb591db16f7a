-- Quarantined records keep their headers: content type and format headers say how the bytes are to be read again.

ALTER TABLE prooftrail.quarantine ADD COLUMN headers json NOT NULL DEFAULT '{}';
COMMENT ON COLUMN prooftrail.quarantine.headers IS
    'The record''s headers by lower-case name; json, not jsonb, because a producer may have put anything in them.';
