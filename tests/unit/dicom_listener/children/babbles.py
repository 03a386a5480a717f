"""A decoder whose memory a picture spoiled: it answers what it was asked to, in bytes that are no message."""

import json
import sys

from dicom_listener.bounded import LENGTH

_ODD = b'{"dtype": "|u1", "shape": [999]}'
_SAID = {
    "long": LENGTH.pack(2, 1 << 60) + b"{}",
    "no json": LENGTH.pack(2, 0) + b"{[",
    "deep": LENGTH.pack(1 << 20, 0) + b"[" * (1 << 20),
    "a list": LENGTH.pack(2, 0) + b"[]",
    "no shape": LENGTH.pack(2, 0) + b"{}",
    "wrong shape": LENGTH.pack(len(_ODD), 2) + _ODD + b"12",
}
ready = json.dumps({"ready": True}).encode()
sys.stdout.buffer.write(LENGTH.pack(len(ready), 0) + ready)
sys.stdout.buffer.flush()
for line in sys.stdin:
    sys.stdout.buffer.write(_SAID[json.loads(line)["path"]])
    sys.stdout.buffer.flush()
