"""The whole error tree of Wetread.

An error's docstring is its default message, written for the person who must act on it. Messages never carry patient
data: name attributes, rules and limits, not names or birth dates.
"""

from __future__ import annotations

import inspect


class WetreadError(Exception):
    """Something went wrong in Wetread."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.getdoc(type(self)) or type(self).__name__)


class SettingsError(WetreadError):
    """The configuration is not valid."""


class BackupError(WetreadError):
    """A backup cannot be made, or cannot be brought back."""


class DatabaseUnavailable(WetreadError):
    """The database does not answer. Check `wetread doctor` and the database's own log."""


class SchemaError(WetreadError):
    """The database's schema does not fit this version of Wetread. Run `wetread migrate`."""


class EmbeddedServerError(WetreadError):
    """The embedded PostgreSQL could not be started or stopped."""


class NotFound(WetreadError):
    """There is no such record."""


class ObjectNotStorable(WetreadError):
    """The object cannot be stored: it is not a DICOM data set with the UIDs that storage needs."""


class ObjectTooLarge(ObjectNotStorable):
    """The object is larger than is taken here, or would be once it is inflated."""


class OutOfSpace(WetreadError):
    """The disk of the spool is fuller than the watermark allows."""


class PixelsNotReadable(WetreadError):
    """The object's pixels cannot be decoded."""


class PeerError(WetreadError):
    """The other DICOM node did not take the object."""

    def __init__(self, message: str | None = None, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status  # DIMSE status (PS3.7 annex C) where there was an answer


class PeerUnavailable(PeerError):
    """The other DICOM node does not answer, or ended the association. Sending is retried."""

    def __init__(self, message: str | None = None, *, status: int | None = None, maybe_there: bool = False) -> None:
        super().__init__(message, status=status)
        self.maybe_there = maybe_there  # the object was sent and no answer came: the node may have it all the same


class PeerRefused(PeerError):
    """The other DICOM node answered, and refused the object."""


class BundleError(WetreadError):
    """The model bundle is not usable."""


class ModelFailed(WetreadError):
    """The model's process crashed, ran out of memory or passed its time limit. The read can be tried again."""


class RenderingError(WetreadError):
    """The result could not be rendered."""


class Outdated(WetreadError):
    """Somebody else was faster: what you saw is no longer the newest. Look at the new state, then decide."""


class QueryError(WetreadError):
    """The query is not valid."""


class NotAllowed(WetreadError):
    """The caller may not do this."""


class MayNotLeave(WetreadError):
    """The image may not leave as training data: it could tell whose it is."""


class TrainingError(WetreadError):
    """The model could not be trained."""


class AccountError(WetreadError):
    """The account cannot be made or changed like this."""
