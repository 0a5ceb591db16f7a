"""Prooftrail: an audit trail you can prove.

The map, from what people do to what everything rests on; imports point downwards only:

- ``cli``: what operators do from a shell; ``invocation``: a function called as Lambda would; ``drill``: tampering found out
- ``bundle``: an answer that proves itself, and the program that checks it; ``proofs``: of one event, and of the log
- ``verification``: is everything stored what the logs committed to?
- ``erasure``, ``holds``: what must go, and what must stay; ``quarantine``: what waits to be read again
- ``catalogue``: which actions there are, and the rules for them; ``sources``: who sends, as the log tells it
- ``entries``: what the log committed to, from where it is stored
- ``checkpoints``: the log leaves the database, signed; ``witness``: who cosigns that nobody is shown another history
- ``search``, ``segments``, ``api_keys``, ``migrations``: each speaks SQL about one thing
- ``system``: our own events; ``store``: one transaction in which every record ends well; ``rules``: what it holds events to
- ``database``: how a function reaches PostgreSQL
- ``archive_bucket``: objects that are written once; ``row_groups``: of an object, only what may hold a time
- ``parquet``: rows become an archived object and again rows; loads Arrow, so it is imported where it is needed only
- ``formats``: raw records become events, or are rejected with a reason
- ``event``: what a producer sent; ``strict_json`` and ``canonical``: its bytes
- ``evidence``: the bucket of checkpoints and tiles; ``signing``: who puts a name under them
- ``witness_client``: asks a witness; ``redrive``: dead letters go back under their names
- ``ledger``: the Merkle log and its proofs, in pure Python
- ``problem``: an HTTP answer to what went wrong
- ``aws``, ``http_client``, ``settings``, ``telemetry``, ``errors``: at the bottom
"""
