"""Prooftrail: an audit trail you can prove.

The map, from what a producer sends to where it rests; imports point downwards only:

- ``erasure``, ``holds``: what must go, and what must stay
- ``api_keys``, ``search``, ``store``, ``segments``, ``migrations``: each speaks SQL about one thing
- ``database``: how a function reaches PostgreSQL
- ``parquet``: rows become an archived object and again rows; loads Arrow, so it is imported where it is needed only
- ``formats``: raw records become events, or are rejected with a reason
- ``event``: what a producer sent; ``strict_json`` and ``canonical``: its bytes
- ``evidence``: the bucket of checkpoints and tiles; ``signing``: who puts a name under them
- ``ledger``: the Merkle log and its proofs, in pure Python
- ``aws``, ``settings``, ``telemetry``, ``errors``: at the bottom
"""
