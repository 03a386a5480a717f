"""A decoder that begins, and never ends."""

import json
import sys
import time

from dicom_listener.bounded import LENGTH

ready = json.dumps({"ready": True}).encode()
sys.stdout.buffer.write(LENGTH.pack(len(ready), 0) + ready)
sys.stdout.buffer.flush()
sys.stdin.readline()
time.sleep(600)
