"""A result said in every language that it is sent in: pure functions of records and headers; no clock, no chance."""
