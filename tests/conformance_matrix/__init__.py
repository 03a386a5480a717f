"""Every kind of object that we write, about every kind of source, in the eyes of other makers' programs."""
