"""A model's process that answers with something that is no answer."""

import sys

from inference.wire import encode

sys.stdout.buffer.write(encode({"ready": 1}))
sys.stdout.flush()
sys.stdin.buffer.read(4)
sys.stdout.buffer.write(encode({"answer": {"kind": "poem"}}))
sys.stdout.flush()
sys.stdin.buffer.read()
