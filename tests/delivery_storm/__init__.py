"""Deliveries to a PACS that fails in every way that a PACS can fail, one after the other and all at once."""
