"""Work on methods: running, breaking, comparing, recording them. What their numbers mean is decided in `evidence`."""
