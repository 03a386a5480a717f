"""What can be asked of the record and written to it, one module a subject.

Every function takes the caller's session and leaves committing to it, so that an effect, its step and the next job go
in together.
"""
