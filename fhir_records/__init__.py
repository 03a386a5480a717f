"""The record: what is known about a patient's studies, and every way of saying it."""
