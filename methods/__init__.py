"""One short PyTorch reimplementation per paper, and the kit that they share."""
