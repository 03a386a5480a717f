"""OpenVINO on the processor, in bfloat16 where it has that: the optional extra `openvino`.

Only for a model whose answers were compared with torch's at registration (`select.open_backend`). OpenVINO's telemetry
package is never imported.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fhir_records.errors import BundleError
from inference.backends import Outputs


def installed() -> bool:
    """Whether the extra is there."""
    return importlib.util.find_spec("openvino") is not None


class OpenVinoBackend:
    """A network exported at registration. Raises BundleError where the file does not load."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its import fails: nothing is sent
        import openvino

        try:
            core = openvino.Core()
            self.precision = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
            settings = {
                "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": self.precision,
                "PERFORMANCE_HINT": "LATENCY",
                "CACHE_DIR": "",
            }
            compiled = core.compile_model(str(path), "CPU", settings)
        except MemoryError:
            raise
        except Exception as error:  # boundary: OpenVINO's errors are RuntimeError and others without a base class
            raise BundleError(f"{path.name} does not load in OpenVINO: {type(error).__name__}") from error
        self._request = compiled.create_infer_request()
        self._outputs = [output.any_name for output in compiled.outputs]

    @property
    def name(self) -> str:
        """How its comparison with torch is recorded; another precision is another back end."""
        return f"openvino {self.precision}"

    def run(self, inputs: npt.NDArray[np.float32]) -> Outputs:
        """The outputs for inputs of shape (images, 1, size, size)."""
        results = self._request.infer([np.ascontiguousarray(inputs)])
        return Outputs.named({name: np.array(results[number]) for number, name in enumerate(self._outputs)})
