"""The verbs of the command `smallprint`, one file each."""

import os

# Before numpy is loaded: its small matrix products are slower, on busy cores fifty times, when two threads share them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
