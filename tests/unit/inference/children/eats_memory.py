"""A model's process that takes ever more memory once it is asked something."""

import sys
import time

from inference.wire import encode

sys.stdout.buffer.write(encode({"ready": 1}))
sys.stdout.flush()
sys.stdin.buffer.read(4)
hoard = []
while len(hoard) < 64:  # 2 GB at most, should nobody stop it
    hoard.append(b"x" * 2**25)
    time.sleep(0.01)
time.sleep(600)
