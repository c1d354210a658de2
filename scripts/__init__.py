"""The command `smallprint` (`cli`), and behind it five folders on four floors: a floor imports only from those below it."""

import os

# Before numpy and torch are loaded. Two threads that share small products wait for each other by spinning: on cores that are
# busy with something else, that made them twenty to fifty times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
