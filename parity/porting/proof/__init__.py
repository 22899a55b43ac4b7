"""A port held against its original."""
