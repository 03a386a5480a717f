"""Install the real peers that the tests talk to, where that is possible: ``python -m tests.install_peers``.

As root on Debian or a relative of it they are installed by apt; elsewhere it is said what to install, and the tests
that need them skip, loudly.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

# Program → Debian package.
PEERS = {
    "Orthanc": "orthanc",
    "storescu": "dcmtk",
    "dciodvfy": "dicom3tools",
    "chromium": "chromium",
    "strace": "strace",
}


def main() -> int:
    """Install what is missing; never fails, for the tests say themselves what they lack."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    missing = sorted({package for program, package in PEERS.items() if shutil.which(program, path=path) is None})
    if not missing:
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"For all tests install: {' '.join(missing)}. Those that need them will skip.", file=sys.stderr)
        return 0
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=env, check=False)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, "fonts-dejavu-core"]
    done = subprocess.run(command, env=env, check=False, stdout=subprocess.DEVNULL)
    if done.returncode:
        print(f"apt could not install {' '.join(missing)}; tests that need them will skip.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
