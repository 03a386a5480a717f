"""The shipped model, registered, in its child process, on real scans and on computed ones."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from fhir_records.errors import ModelFailed
from inference.answers import Classified, Refused
from inference.reading import ImageFile
from inference.registry import SHIPPED, RegisteredModel, Registry
from inference.runner import ModelRunner

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4.1"


@pytest.fixture(scope="module")
def registry(registered_models: Path) -> Registry:
    """A registry with the shipped models in it."""
    return Registry(registered_models)


@pytest.fixture(scope="module")
def model(registry: Registry) -> RegisteredModel:
    """The shipped brain MR model."""
    return registry.get("brain_mr_tumour")


def _files(folder: Path) -> list[ImageFile]:
    files = []
    for path in sorted(folder.iterdir()):
        tags = ["SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
        ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        files.append(ImageFile(str(path), ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.SOPClassUID))
    return files


def _head(number: int, count: int, size: int) -> np.ndarray:
    """A slice of a ball with a bright rim and a bright spot in it."""
    row, column = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    wide = 0.8 * np.sqrt(1.05 - (2 * number / count - 1) ** 2)
    far = np.sqrt((row / 1.1) ** 2 + column**2) / wide
    image = np.where(far < 1, np.where(far < 0.92, 500, 1100), 0) + 300 * ((row - 0.2) ** 2 + column**2 < 0.03)
    noise = np.random.default_rng(number).normal(scale=12, size=image.shape)
    return np.clip(image + noise, 0, 4095).astype("<u2")


def _write(path: Path, pixels: np.ndarray, sop_class: str, number: int) -> ImageFile:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, f"2.25.{1000 + number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "2.25.1", "2.25.2"
    ds.Modality, ds.BodyPartExamined, ds.InstanceNumber = "MR", "HEAD", number
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.Rows, ds.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        ds.NumberOfFrames = len(pixels)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OW"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = sop_class, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
    return ImageFile(str(path), "2.25.2", str(ds.SOPInstanceUID), sop_class)


@pytest.fixture
def familiar(model: RegisteredModel, tmp_path: Path) -> RegisteredModel:
    """The shipped model with its guards against strange images off: what these tests draw is no head."""
    folder = tmp_path / "model"
    folder.mkdir()
    os.link(model.path / "model.onnx", folder / "model.onnx")
    text = (model.path / "contract.toml").read_text(encoding="utf-8")
    (folder / "contract.toml").write_text(
        text.split("[familiarity]")[0].replace("[guard]", "[no_guard]"), encoding="utf-8"
    )
    return replace(model, path=folder)


def test_a_healthy_head_is_read_and_no_tumour_is_said_of_it(model: RegisteredModel, test_data: Path) -> None:
    """The real 170-slice series of a healthy volunteer is read whole; the answer says that there is no tumour."""
    files = _files(test_data / "dicom" / "philips_brain_mr")
    with ModelRunner() as runner:
        answer = runner.read(model, files)
    assert isinstance(answer, Classified)
    assert answer.images_read == 170
    assert (answer.label, answer.presence) == ("notumor", "absent")
    assert len(answer.key_images) == 3
    assert {key.sop_uid for key in answer.key_images} <= {file.sop_uid for file in files}
    assert any("contrast agent" in sentence for sentence in answer.limits)
    assert sum(alternative.probability for alternative in answer.alternatives) == pytest.approx(1)


def test_a_fruit_is_not_read_as_a_head(model: RegisteredModel, test_data: Path) -> None:
    """A real MR series of a fruit, under a plausible header, is refused because it looks like nothing known."""
    with ModelRunner() as runner:
        answer = runner.read(model, _files(test_data / "dicom" / "ge_fruit_mr"))
    assert isinstance(answer, Refused)
    assert answer.code == "anatomy"


def test_the_process_tells_what_images_show(registry: Registry, test_data: Path) -> None:
    """The guard's model names the anatomy of whole series by their pixels, also after another model was loaded."""
    anatomy = registry.get("anatomy")
    head = _files(test_data / "dicom" / "philips_brain_mr")[60:110:5]
    with ModelRunner() as runner:
        assert runner.look(anatomy, head) == "brain MR"
        assert isinstance(runner.read(registry.get("chest_xr_pneumonia"), head), Refused)
        assert runner.look(anatomy, head) == "brain MR"
        assert runner.look(anatomy, [ImageFile("/nowhere", "1", "2", "3")]) == ""


def test_a_ct_is_refused_by_its_modality(model: RegisteredModel, test_data: Path) -> None:
    """A CT is not read, and the words say why."""
    ct = next((test_data / "dicom" / "assorted").glob("eCT*"))
    with ModelRunner() as runner:
        answer = runner.read(model, [ImageFile(str(ct), "1.2", "1.2.3", "1.2.840.10008.5.1.4.1.1.2.1")])
    assert answer == Refused("modality", "Not read, because the study has CT images and this model reads MR only.")


def test_a_fault_in_some_images_is_a_limit(familiar: RegisteredModel, tmp_path: Path) -> None:
    """Images that cannot be decoded are left out, and the answer says how many."""
    files = [_write(tmp_path / f"{n}.dcm", _head(n, 20, 128), MR_IMAGE, n) for n in range(20)]
    whole = Path(files[3].path).read_bytes()
    Path(files[3].path).write_bytes(whole[:-9000])
    Path(files[4].path).write_bytes(b"no DICOM at all")
    with ModelRunner() as runner:
        answer = runner.read(familiar, files)
    assert isinstance(answer, Classified)
    assert answer.images_read == 18
    assert "2 of 20 images could not be decoded." in answer.limits


def test_a_multi_frame_object_is_read_by_frames(familiar: RegisteredModel, tmp_path: Path) -> None:
    """Each frame of an Enhanced MR object is an image, and key images name their frames."""
    stack = np.stack([_head(n, 16, 128) for n in range(16)])
    with ModelRunner() as runner:
        answer = runner.read(familiar, [_write(tmp_path / "1.dcm", stack, ENHANCED_MR_IMAGE, 1)])
    assert isinstance(answer, Classified)
    assert answer.images_read == 16
    assert all(key.frame is not None and 1 <= key.frame <= 16 for key in answer.key_images)


def test_an_image_too_large_for_the_limit_fails_the_read_alone(familiar: RegisteredModel, tmp_path: Path) -> None:
    """A study that needs more memory than the contract allows fails in words; the next study is read."""
    large = _write(tmp_path / "large.dcm", np.full((7000, 7000), 100, dtype="<u2"), MR_IMAGE, 1)
    text = (familiar.path / "contract.toml").read_text(encoding="utf-8")
    text = text.replace("memory_limit_mb = 2048", "memory_limit_mb = 300")
    (familiar.path / "contract.toml").write_text(text, encoding="utf-8")
    small = replace(familiar, contract=replace(familiar.contract, memory_limit_mb=300))
    with ModelRunner() as runner:
        with pytest.raises(ModelFailed, match="ran out of its memory limit of 300 MB"):
            runner.read(small, [replace(large, sop_uid=f"{large.sop_uid}.{n}") for n in range(5)])
        heads = [_write(tmp_path / f"{n}.dcm", _head(n, 12, 128), MR_IMAGE, n) for n in range(12)]
        assert isinstance(runner.read(small, heads), Classified)


def test_memory_does_not_grow_with_the_stack(model: RegisteredModel, test_data: Path) -> None:
    """Reading 170 slices twice over leaves the process below 512 MB, a quarter of its limit: images pass in batches."""
    files = _files(test_data / "dicom" / "philips_brain_mr")
    with ModelRunner() as runner:
        for _ in range(2):
            runner.read(model, files)
        status = Path(f"/proc/{runner.process_id}/status")
        if not status.exists():
            pytest.skip("SKIPPED LOUDLY: this system does not tell a process's memory")
        (peak,) = [line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM")]
    assert int(peak.split()[1]) < 512 * 1024  # 290 to 415 MB were seen: what threads free, the allocator keeps


def test_the_shipped_figures_come_out_again(test_data: Path) -> None:
    """The shipped bundle's balanced accuracy on its validation clusters is what its metrics say, and above 0.80."""
    from inference.training.train import evaluate_bundle

    bundle = SHIPPED / "brain_mr_tumour"
    stored = json.loads((bundle / "metrics.json").read_text(encoding="utf-8"))
    measured = evaluate_bundle(bundle, test_data / "brain_mr")
    assert measured.balanced_accuracy == pytest.approx(stored["balanced_accuracy"], abs=0.005)
    assert measured.balanced_accuracy > 0.80
    assert measured.expected_calibration_error == pytest.approx(stored["expected_calibration_error"], abs=0.005)
