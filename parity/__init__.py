"""The bridge between PyTorch and jaxnn: weights, comparisons, conformance."""
