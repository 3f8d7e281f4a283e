"""Train the MSE-Adapter: a small plug-in that lets a frozen large language model hear and see."""

__version__ = "0.1.0"
