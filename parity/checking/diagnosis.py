"""Why."""


def explain(s):
    return None, ""
