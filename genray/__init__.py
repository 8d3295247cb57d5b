"""genray: train generative image models, run them over image stores, watch ECG signals live, on Ray."""

__version__ = "0.1.0"
__all__ = ["__version__"]
