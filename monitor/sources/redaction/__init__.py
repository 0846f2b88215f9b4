"""Redaction before the spool: what must not be kept is on no disk."""
