"""A model's process that dies of a segmentation fault when it is asked something."""

import os
import signal
import sys

from inference.wire import encode

sys.stdout.buffer.write(encode({"ready": 1}))
sys.stdout.flush()
sys.stdin.buffer.read(4)
os.kill(os.getpid(), signal.SIGSEGV)
