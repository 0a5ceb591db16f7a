"""Prooftrail."""
