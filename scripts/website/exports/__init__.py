"""Files beside the pages, one module a format. No page is made here."""
