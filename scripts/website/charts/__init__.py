"""Charts: what they show, how they are drawn, kept and explored. What stands around one is `website.markup`."""
