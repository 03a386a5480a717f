"""The listener's own program, which `wetread listen` becomes: ``python -m deploy.listen [CONFIG]``.

It runs in several processes day and night, so it loads no more than it uses: neither the command line's libraries, nor
what pydicom loads wherever it finds it, to decode pixels and to fetch examples. What has to be decoded is decoded in
children (`dicom_listener.bounded`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

UNUSED: Final = ("gdcm", "requests", "PIL", "openjpeg", "rle", "numpy", "rich", "tqdm")


def main(arguments: list[str]) -> int:
    """Listen until SIGTERM or SIGINT; the exit status."""
    # None: "not installed" (the import system's own word for it), until pydicom has looked.
    absent = [name for name in UNUSED if sys.modules.setdefault(name, None) is None]  # type: ignore[arg-type]
    from deploy.roles import run_role
    from deploy.wiring import ListenRole
    from fhir_records.errors import WetreadError

    for name in absent:
        del sys.modules[name]
    try:
        return run_role("listen", Path(arguments[0]) if arguments else None, ListenRole)
    except WetreadError as error:
        sys.stderr.write(f"wetread: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
