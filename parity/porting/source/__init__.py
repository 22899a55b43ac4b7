"""The graph as Python source: classes, methods, statements."""
