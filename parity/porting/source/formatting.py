"""The text of classes and of lines too long for one line."""

import re
from collections.abc import Iterator


def wrapped(line: str, indent: int, width: int = 120) -> str:
    """The line, broken behind commas of its outermost bracket where it is too long."""
    indent += len(line) - len(line.lstrip())  # within a loop
    line = line.lstrip()
    prefix = " " * indent
    if len(line) + indent <= width:
        return prefix + line
    if line.startswith("return ") and len(row := _commas(line.removeprefix("return "))) > 1:
        line = f"return ({', '.join(row)})"
    opening = _opening(line, 0)
    if opening is None:
        return prefix + line
    closing = _closing(line, opening)
    while closing < len(line) - 1 and line[closing + 1 :].lstrip()[:1] not in ("", ")", "]", "}"):
        after = _opening(line, closing + 1)
        if after is None:
            break
        end = _closing(line, after)
        if end - after < closing - opening and len(line) - closing + indent <= width:
            break  # what is behind is short, such as a subscript
        opening, closing = after, end
    parts = _commas(line[opening + 1 : closing])
    element, rest = _comprehension(parts[0]) if len(parts) == 1 else ("", "")
    if rest:
        body = [wrapped(element, indent + 4), " " * (indent + 4) + f"for {rest}"]
    else:
        # A comma behind the only part of plain parentheses, or of a subscript, would make a tuple of it.
        follows = re.search(r"[\w)\]]$", line[:opening]) is not None
        grouped = len(parts) == 1 and follows == (line[opening] == "[") and line[opening] != "{"
        comma = "" if grouped and not line[opening + 1 : closing].rstrip().endswith(",") else ","
        body = [wrapped(part + (comma if part else ""), indent + 4) for part in parts]
    return "\n".join([prefix + line[: opening + 1], *body, prefix + line[closing:]])


def spaced(lines: list[str]) -> list[str]:
    """Statements with blank lines around the functions among them, but none first in a block."""
    result: list[str] = []
    open_at: list[int] = []
    for line in lines:
        indent = len(line) - len(line.lstrip())
        ended = [at for at in open_at if at >= indent]
        open_at = open_at[: len(open_at) - len(ended)]
        is_function = line.lstrip().startswith(("def ", "@"))
        if result and (ended or (is_function and not result[-1].endswith(":"))) and result[-1].lstrip()[:1] != "@":
            result.append("")
        if is_function:
            open_at.append(indent)
        result.append(line)
    return result


def _comprehension(text: str) -> tuple[str, str]:
    """The two sides of a ``for`` outside of all brackets and strings."""
    code = {i for i, _ in _code(text)}
    for match in re.finditer(" for ", text):
        before = text[: match.start()]
        if match.start() in code and all(before.count(a) == before.count(b) for a, b in ("()", "[]", "{}")):
            return before, text[match.end() :]
    return text, ""


def _opening(line: str, start: int) -> int | None:
    return next((i for i, character in _code(line) if i >= start and character in "([{"), None)


def _closing(line: str, opening: int) -> int:
    depth = 0
    for i, character in _code(line):
        if i >= opening:
            depth += (character in "([{") - (character in ")]}")
            if depth == 0:
                return i
    return len(line) - 1


def _commas(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for i, character in _code(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    tail = text[start:].strip()
    return parts + ([tail] if tail else [])


def _code(text: str) -> Iterator[tuple[int, str]]:
    """The characters outside of strings, each with its place."""
    quote = ""
    for i, character in enumerate(text):
        if quote or character in "\"'":
            quote = "" if character == quote else quote or character
        else:
            yield i, character
