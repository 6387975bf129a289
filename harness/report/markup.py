"""HTML and SVG elements as text, escaped unless made here."""

import html
from collections.abc import Iterable, Sequence

from harness.report import style

VOID = ("meta", "br", "img")


class Safe(str):
    """Markup that `element` made; every other string is escaped."""

    __slots__ = ()


def escape(text: object) -> Safe:
    """Text for element content and quoted attributes alike."""
    return text if isinstance(text, Safe) else Safe(html.escape(style.printable(str(text))))


def element(name: str, /, *children: object, **attributes: object) -> Safe:
    """One element; `class_` is the attribute class, `data_label` is data-label, None is left out.

    >>> element("a", "<&", class_='"')
    '<a class="&quot;">&lt;&amp;</a>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Safe(f"<{name}{given}>")
    return Safe(f"<{name}{given}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Safe:
    """Several pieces of markup or text after each other; None is left out."""
    return Safe("".join(escape(child) for child in children if child is not None))


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    caption: str | None = None,
    numeric: bool = True,
    class_: str | None = None,
) -> Safe:
    """A table that scrolls by itself; the first column names its row, the rest are numbers."""
    kind = "num" if numeric else None
    top = [
        element("th", name, scope="col", class_=kind if i else None) for i, name in enumerate(head)
    ]
    body = [
        element("tr", element("th", row[0], scope="row"), *_cells(head[1:], row[1:], kind))
        for row in rows
    ]
    inner = element(
        "table",
        element("caption", caption) if caption else None,
        element("thead", element("tr", *top)),
        element("tbody", *body),
        class_=class_,
    )
    return element(
        "div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption or head[0]
    )


def _cells(head: Sequence[str], row: Sequence[object], kind: str | None) -> list[Safe]:
    """Cells that know their column, for narrow pages that show them as lines."""
    return [
        element("td", cell, class_=kind, data_label=name)
        for name, cell in zip(head, row, strict=True)
    ]


def details(summary: str, *children: object) -> Safe:
    """Content that opens on a click."""
    return element("details", element("summary", summary), *children)
