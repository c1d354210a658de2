"""The site: a file a kind of page, and what makes, renders and serves them. Nothing is measured or decided here."""
