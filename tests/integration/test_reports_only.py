"""A destination that is no caller: its reports are heard, its objects are not taken."""

from __future__ import annotations

from pynetdicom import AE, build_role

from dicom_listener.commitment import PUSH_MODEL
from tests.integration.liar import report_listener
from tests.unit.dicom_listener.objects import MR_IMAGE
from workflow.confirmation import TakeCommitmentReport


def test_a_reporter_is_offered_no_storage() -> None:
    """Of what it proposes, storage is refused, and so is commitment where we would be the provider."""
    never = TakeCommitmentReport(None, {}, lambda: None)  # type: ignore[arg-type, return-value]
    ae = AE(ae_title="LIAR")
    ae.add_requested_context(MR_IMAGE)
    ae.add_requested_context(PUSH_MODEL)
    ae.add_requested_context("1.2.840.10008.1.1")
    with report_listener(never) as port:
        for roles, accepted in (
            ([build_role(PUSH_MODEL, scp_role=True)], {PUSH_MODEL, "1.2.840.10008.1.1"}),
            ([], {"1.2.840.10008.1.1"}),
        ):
            assoc = ae.associate("127.0.0.1", port, ae_title="WETREAD", ext_neg=roles)
            assert {str(context.abstract_syntax) for context in assoc.accepted_contexts} == accepted
            assoc.release()
