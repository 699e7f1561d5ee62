"""A model, text and settings so small that a run takes a blink; shared by several tests."""

from mpteach import data, gpt, runs

CONFIG = gpt.GPTConfig(layers=1, heads=2, hidden=16, sequence=8)
CORPUS = data.Corpus("verse", b"the quick brown fox jumps over the lazy dog. " * 40)
SETTINGS = runs.Settings(steps=12, batch=4, validation_batches=2, gradient_every=5)
