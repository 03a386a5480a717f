"""Compressed images for a node that takes nothing compressed: the same pixels, never more loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from pynetdicom import AE, evt
from pynetdicom.events import Event

from dicom_listener.bounded import BoundedDecoder
from dicom_listener.library import prepare_library
from dicom_listener.pixels import native_frame
from dicom_listener.received import split_file
from dicom_listener.sender import FileOutcome, send_files
from dicom_listener.settings import Node, SenderSettings
from dicom_listener.transcoding import uncompressed
from fhir_records.errors import PeerRefused, PixelsNotReadable
from tests.peers import HOST, dciodvfy
from tests.unit.dicom_listener.objects import as_file, image

COMPRESSED = (
    "transfer_syntaxes/CTImage.dcm_JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90.dcm",
    "transfer_syntaxes/CTImage.dcm_JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80.dcm",
    "transfer_syntaxes/CTImage.dcm_JPEGProcess14SV1TransferSyntax_1.2.840.10008.1.2.4.70.dcm",
    "transfer_syntaxes/CTImage.dcm_JPEGProcess2_4TransferSyntax_1.2.840.10008.1.2.4.51.dcm",
    "transfer_syntaxes/CTImage.dcm_RLELosslessTransferSyntax_1.2.840.10008.1.2.5.dcm",
    "transfer_syntaxes/TestPattern_JPEG-Baseline_YBR422.dcm",
    "transfer_syntaxes/TestPattern_JPEG-LS-Lossless.dcm",
    "assorted/US1_J2KR.dcm",
    "assorted/HTJ2KLossless_08_RGB.dcm",
    "assorted/OBXXXX1A_rle_2frame.dcm",
    "assorted/emri_small_jpeg_ls_lossless.dcm",
)


@pytest.fixture(scope="module")
def decoder() -> Iterator[BoundedDecoder]:
    with BoundedDecoder() as made:
        yield made


@contextmanager
def acceptor(syntaxes: list[str], sop_classes: set[str], received: list[Dataset]) -> Iterator[Node]:
    """A node that takes these SOP classes in these transfer syntaxes alone."""

    def keep(event: Event) -> int:
        ds = event.dataset
        ds.file_meta = event.file_meta
        received.append(ds)
        return 0

    ae = AE(ae_title="PLAIN")
    for uid in sop_classes:
        ae.add_supported_context(uid, syntaxes)
    prepare_library()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pynetdicom._config.UNRESTRICTED_STORAGE_SERVICE", False)
        patch.setattr("dicom_listener.sender.prepare_library", lambda: None)
        server = ae.start_server((HOST, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
        assert server is not None
        try:
            yield Node("plain", "PLAIN", HOST, server.server_address[1], timeout_s=30)
        finally:
            server.shutdown()


def sent(
    paths: list[Path], syntaxes: list[str], decoder: BoundedDecoder | None
) -> tuple[list[FileOutcome], list[Dataset]]:
    received: list[Dataset] = []
    classes = {str(dcmread(path, stop_before_pixels=True).SOPClassUID) for path in paths}
    with acceptor(syntaxes, classes, received) as node:
        outcomes = list(send_files(paths, node, SenderSettings(), decoder=decoder))
    return outcomes, received


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_node_that_takes_nothing_compressed_gets_the_same_pixels(
    test_data: Path, decoder: BoundedDecoder, syntax: str
) -> None:
    """Lossless and lossy, grey, colour, palette and multi-frame: each frame has the values that it decodes to."""
    paths = [test_data / "dicom" / name for name in COMPRESSED]
    outcomes, received = sent(paths, [syntax], decoder)
    assert [outcome.meaning for outcome in outcomes] == ["success"] * len(paths)
    for path, ds in zip(paths, received, strict=True):
        source = dcmread(path)
        assert (ds.file_meta.TransferSyntaxUID, ds.SOPInstanceUID) == (syntax, source.SOPInstanceUID)
        frames = int(source.get("NumberOfFrames") or 1)
        pixels = ds.pixel_array.reshape(frames, *native_frame(path).pixels.shape)
        for number in range(frames):
            assert np.array_equal(pixels[number], native_frame(path, number + 1).pixels), path.name
        # Encoded anew, group lengths (PS3.5 section 7.2) are gone, and implicit VR tells no private ones.
        outside = [element for element in source if element.tag.group != 0x0028 and element.tag.group < 0x7FE0]
        kept = [element for element in outside if element.tag.element != 0 and not element.tag.is_private]
        for element in kept:
            assert ds[element.tag].to_json_dict(None, 0) == element.to_json_dict(None, 0), path.name


def test_an_image_goes_as_it_is_wherever_that_is_taken(test_data: Path, decoder: BoundedDecoder) -> None:
    """A node that takes the image's own transfer syntax gets its very bytes, though it would take another, too."""
    path = test_data / "dicom" / COMPRESSED[1]
    own = str(dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
    outcomes, (ds,) = sent([path], [ExplicitVRLittleEndian, own], decoder)
    assert outcomes[0].delivered and str(ds.file_meta.TransferSyntaxUID) == own
    assert ds.PixelData == dcmread(path).PixelData


def test_without_a_decoder_nothing_is_made_uncompressed(test_data: Path) -> None:
    """A result goes as it was rendered, or not at all."""
    with pytest.raises(PeerRefused, match="does not take this kind of object"):
        sent([test_data / "dicom" / COMPRESSED[1]], [ExplicitVRLittleEndian], None)


def test_loss_that_was_there_is_still_told(test_data: Path, decoder: BoundedDecoder) -> None:
    """The transfer syntax of a lossy image names its loss; uncompressed, an attribute does."""
    lossy, lossless = (test_data / "dicom" / COMPRESSED[place] for place in (3, 1))
    assert uncompressed(lossy, ExplicitVRLittleEndian, decoder).LossyImageCompression == "01"
    assert "LossyImageCompression" not in uncompressed(lossless, ExplicitVRLittleEndian, decoder)


def test_colours_that_would_be_rounded_are_refused(tmp_path: Path, decoder: BoundedDecoder) -> None:
    """A losslessly compressed YBR image stays what it is: in RGB its values would be others."""
    ds = image(SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0, BitsAllocated=8)
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 7, 0
    ds.PixelData = bytes(range(ds.Rows * ds.Columns * 3))
    plain = tmp_path / "plain.dcm"
    plain.write_bytes(as_file(ds))
    compressed = dcmread(plain)
    compressed.compress(RLELossless, generate_instance_uid=False)
    path = tmp_path / "rle.dcm"
    compressed.save_as(path)
    with pytest.raises(PixelsNotReadable, match="without rounding"):
        uncompressed(path, ExplicitVRLittleEndian, decoder)
    outcomes, received = sent([path], [ExplicitVRLittleEndian], decoder)
    assert (outcomes[0].status, received) == (0x0122, [])
    assert "takes this object uncompressed only" in outcomes[0].meaning


def test_a_broken_image_is_refused_and_the_next_one_goes(test_data: Path, decoder: BoundedDecoder) -> None:
    """What does not decode is told with its reason; the association goes on."""
    folder = test_data / "dicom" / "assorted"
    broken, good = folder / "emri_small_jpeg_2k_lossless_too_short.dcm", folder / "emri_small_jpeg_ls_lossless.dcm"
    outcomes, received = sent([broken, good], [ExplicitVRLittleEndian], decoder)
    assert [outcome.delivered for outcome in outcomes] == [False, True]
    assert len(received) == 1


@pytest.mark.parametrize("place", [0, 4])
def test_what_is_made_uncompressed_is_no_worse_an_object(
    test_data: Path, tmp_path: Path, decoder: BoundedDecoder, place: int
) -> None:
    """`dciodvfy` has no more to complain of than in the object that was compressed."""
    path = test_data / "dicom" / COMPRESSED[place]
    made = tmp_path / "plain.dcm"
    uncompressed(path, ExplicitVRLittleEndian, decoder).save_as(made, enforce_file_format=True)
    assert len(split_file(made.read_bytes())[1]) % 2 == 0
    assert set(dciodvfy(made).errors) <= set(dciodvfy(path).errors)
