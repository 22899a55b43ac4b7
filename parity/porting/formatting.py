"""The text of classes and of lines too long for one line."""

import re


def wrapped(line: str, indent: int, width: int = 120) -> str:
    """The line, broken behind commas of its outermost bracket where it is too long."""
    prefix = " " * indent
    if len(line) + indent <= width:
        return prefix + line
    match = re.search(r"[(\[{]", line)
    if match is None:
        return prefix + line
    opening = match.start()
    closing = _closing(line, opening)
    while closing < len(line) - 1 and line[closing + 1 :].lstrip()[:1] not in ("", ")", "]", "}"):
        following = re.search(r"[(\[{]", line[closing + 1 :])
        if following is None:
            break
        opening = closing + 1 + following.start()
        closing = _closing(line, opening)
    parts = _commas(line[opening + 1 : closing])
    if len(parts) == 1 and " for " in parts[0]:
        element, _, rest = parts[0].rpartition(" for ")
        body = [wrapped(element, indent + 4), " " * (indent + 4) + f"for {rest}"]
    else:
        body = [wrapped(part + ("," if part else ""), indent + 4) for part in parts]
    return "\n".join([prefix + line[: opening + 1], *body, prefix + line[closing:]])


def _closing(line: str, opening: int) -> int:
    depth = 0
    for i in range(opening, len(line)):
        depth += line[i] in "([{"
        depth -= line[i] in ")]}"
        if depth == 0:
            return i
    return len(line) - 1


def _commas(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        depth += character in "([{"
        depth -= character in ")]}"
        if character == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    tail = text[start:].strip()
    return parts + ([tail] if tail else [])
