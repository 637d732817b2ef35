"""Hyperparameter optimization for MHIST. Importing the package loads nothing; every module is imported by its name."""

__version__ = "0.1.0"
