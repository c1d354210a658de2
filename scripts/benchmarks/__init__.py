"""How the program keeps up with its work; run by hand, never by a test."""
