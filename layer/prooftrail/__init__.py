"""Prooftrail: an audit trail you can prove.

The map, from what a producer sends to where it rests; imports point downwards only:

- ``bundle``: an answer that proves itself, and the program that checks it; ``proofs``: of one event, and of the log
- ``erasure``, ``holds``: what must go, and what must stay
- ``entries``: what the log committed to, from where it is stored
- ``api_keys``, ``search``, ``store``, ``segments``, ``migrations``: each speaks SQL about one thing
- ``database``: how a function reaches PostgreSQL
- ``row_groups``: of an archived object, only what may hold a time
- ``parquet``: rows become an archived object and again rows; loads Arrow, so it is imported where it is needed only
- ``formats``: raw records become events, or are rejected with a reason
- ``event``: what a producer sent; ``strict_json`` and ``canonical``: its bytes
- ``evidence``: the bucket of checkpoints and tiles; ``signing``: who puts a name under them
- ``ledger``: the Merkle log and its proofs, in pure Python
- ``aws``, ``settings``, ``telemetry``, ``errors``: at the bottom
"""
