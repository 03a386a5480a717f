"""A decoder that a picture brings to a segmentation fault."""

import json
import os
import signal
import sys

from dicom_listener.bounded import LENGTH

ready = json.dumps({"ready": True}).encode()
sys.stdout.buffer.write(LENGTH.pack(len(ready), 0) + ready)
sys.stdout.buffer.flush()
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGSEGV)
