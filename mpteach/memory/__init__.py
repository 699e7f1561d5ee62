"""Where the bytes of a training step go: counted on paper, traced, measured."""
