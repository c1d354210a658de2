"""The verbs of the `smallprint` command."""
