"""Whole networks, each written twice under the same names: in torch, and with ``jaxnn.nn``."""
