"""A Jupyter widget that takes a language model apart with sparse autoencoders."""

__version__ = "0.1.0"
