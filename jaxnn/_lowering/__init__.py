"""How an operator becomes XLA, where one form does not fit every platform."""
