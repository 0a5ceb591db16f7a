"""The ledger: how a log proves itself. Standard library only, no I/O: an auditor can read it alone, in one sitting.

In the order in which to read it, from what is said to how it is proved:

- ``canonical``: a value's one form in bytes (RFC 8785)
- ``entry``: what of an event is public, what is committed to, and the leaf that stands for it
- ``merkle``: the tree over the leaves, its root, and proofs that something is in it and that it only ever grew (RFC 6962)
- ``tiles``: the tree cut into files (C2SP tlog-tiles)
- ``lines``: what the text formats share
- ``checkpoint``: size and root of a log as the text that is signed, and what a witness is told (C2SP tlog-checkpoint,
  tlog-cosignature, tlog-witness)
- ``ed25519``, ``note``: who signed a text (RFC 8032, C2SP signed-note)
- ``tlog_proof``: an entry's proof in one file (C2SP tlog-proof)
"""
