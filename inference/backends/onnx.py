"""ONNX Runtime on the processor, in fp32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from fhir_records.errors import BundleError
from inference.backends import Outputs


class OnnxBackend:
    """A network exported at registration. Raises BundleError where the file does not load."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # The arena keeps the largest batch's memory for ever; the process has a limit to keep.
        options.enable_cpu_mem_arena = False
        # A thread that spins for work after each batch takes the processor from the decoder beside it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except MemoryError:
            raise
        except Exception as error:  # boundary: ONNX Runtime's errors share no base class
            raise BundleError(f"{path.name} does not load in ONNX Runtime: {type(error).__name__}") from error
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: npt.NDArray[np.float32]) -> Outputs:
        """The outputs for inputs of shape (images, 1, size, size)."""
        results = self._session.run(self._outputs, {self._input: inputs})
        return Outputs.named(dict(zip(self._outputs, results, strict=True)))
