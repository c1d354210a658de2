"""What files, rows and git say together, read and written: no torch, no network, no page; imports only `catalog`."""
