"""hiddencost: what it costs to read the hidden states of Keras and KerasHub models."""

__version__ = "0.1.0"
