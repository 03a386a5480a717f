"""A model's process that answers no request."""

import sys
import time

from inference.wire import encode

sys.stdout.buffer.write(encode({"ready": 1}))
sys.stdout.flush()
time.sleep(600)
