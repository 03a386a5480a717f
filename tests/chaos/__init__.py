"""Everything dies while scans come in, and nothing that was acknowledged is lost: ``python -m tests.chaos``."""
