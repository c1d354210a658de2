"""What all methods share: tasks, networks, training, measuring and channel surgery. A library to call, not a framework."""
