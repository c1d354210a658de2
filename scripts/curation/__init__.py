"""Work on entries: checking, beginning, citing them, asking after their links. No torch; methods are run, and pages made, elsewhere."""
