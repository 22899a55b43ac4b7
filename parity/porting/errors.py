"""Why a model cannot be ported."""


class PortError(RuntimeError):
    """The model cannot be written as JAX source, or what was written does not do what the model does."""
