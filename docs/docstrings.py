"""Public classes and functions of the library as Markdown, from their signatures and docstrings."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import inspector

SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Yields")
WIDTH = 88


def reference_page() -> str:
    """What `inspector` exports: functions, then classes with their members, then errors."""
    found = {name: getattr(inspector, name) for name in sorted(inspector.__all__)}
    functions = {name: value for name, value in found.items() if inspect.isfunction(value)}
    classes = {name: value for name, value in found.items() if inspect.isclass(value)}
    errors = {name: value for name, value in classes.items() if issubclass(value, Exception)}
    parts = [
        "# Reference of the library\n\n",
        "What `import inspector` offers, from the docstrings. Examples run in the tests, in a ",
        "folder with the sample models. How the parts are used together: [Library](library.md).\n",
        "\n## Functions\n",
        *(_callable(name, value, "###") for name, value in functions.items()),
        "\n## Classes\n",
        *(_class(name, value) for name, value in classes.items() if name not in errors),
        "\n## Errors\n",
        *(
            f"\n### {name}\n\n{markdown(inspect.getdoc(value) or '')}"
            for name, value in errors.items()
        ),
    ]
    return "".join(parts)


def _class(name: str, value: type) -> str:
    """A class, and the public members that it defines itself."""
    parts = [f"\n### {name}\n\n{markdown(inspect.getdoc(value) or '')}"]
    for key, member in vars(value).items():
        plain = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if key.startswith("_") or not inspect.getdoc(plain):
            continue
        if inspect.isfunction(plain):
            parts.append(_callable(f"{name}.{key}", plain, "####"))
        elif isinstance(plain, property) or hasattr(plain, "func"):
            parts.append(f"\n#### {name}.{key}\n\n{markdown(inspect.getdoc(plain) or '')}")
    return "".join(parts)


def _callable(name: str, value: Callable[..., Any], heading: str) -> str:
    """A function or method: name, signature, docstring."""
    text = markdown(inspect.getdoc(value) or "")
    return f"\n{heading} {name}\n\n```text\n{_signature(name, value)}\n```\n\n{text}"


def _signature(name: str, value: Callable[..., Any]) -> str:
    """A signature as the source has it, one parameter per line where it is long."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(value)))).body[0]
    if not isinstance(tree, ast.FunctionDef):
        raise TypeError(f"{name} is not a function")
    for taken in (tree.args.posonlyargs, tree.args.args):
        if taken and taken[0].arg in {"self", "cls"}:
            del taken[0]
    shown = ast.unparse(tree.args)
    result = f" -> {ast.unparse(tree.returns)}" if tree.returns else ""
    line = f"{name}({shown}){result}"
    if len(line) <= WIDTH:
        return line
    rows = "".join(f"    {part},\n" for part in _split(shown))
    return f"{name}(\n{rows}){result}"


def _split(parameters: str) -> Iterator[str]:
    """Parameters apart from each other, by the commas outside of brackets and quotes."""
    depth, part, quoted = 0, "", ""
    for sign in parameters:
        if sign in "'\"" and quoted in {"", sign}:
            quoted = "" if quoted else sign
        depth += 0 if quoted else (sign in "([{") - (sign in ")]}")
        if sign == "," and not depth and not quoted:
            yield part.strip()
            part = ""
        else:
            part += sign
    yield part.strip()


def markdown(doc: str) -> str:
    """A docstring in Google's style as Markdown: sections as lists, examples as code."""
    parts: list[str] = []
    for block in re.split(r"\n{2,}", doc.strip()):
        heading, _, rest = block.partition(":\n")
        if heading in SECTIONS:
            parts.append(f"**{heading}**\n\n{_entries(textwrap.dedent(rest))}")
        elif ">>> " in block:
            code = re.sub(r"^Examples?:\n", "", block)
            parts.append(f"```pycon\n{textwrap.dedent(code).strip()}\n```")
        elif block in {"Example:", "Examples:"}:
            continue
        else:
            parts.append(_escaped(block))
    return "\n\n".join(parts) + "\n"


def _entries(text: str) -> str:
    """Entries of a section as a list; a further line of an entry is indented, or has no name."""
    rows: list[str] = []
    for line in text.splitlines():
        found = re.match(r"(\**\w+)(?: \([^)]*\))?: (.*)", line)
        if found:
            rows.append(f"- `{found[1]}`: {found[2]}")
        elif rows:
            rows[-1] += f" {line.strip()}"
        else:
            rows.append(f"- {line.strip()}")
    return _escaped("\n".join(rows))


def _escaped(text: str) -> str:
    """Text with single backquotes in the place of double ones, and no HTML outside of them."""
    pieces = re.split(r"(``.+?``|`.+?`)", text, flags=re.DOTALL)
    return "".join(
        f"`{piece.strip('`')}`" if piece.startswith("`") else piece.replace("<", "&lt;")
        for piece in pieces
    )
