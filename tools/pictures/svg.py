"""A small SVG picture: light and dark, as the reader's system prefers."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

__all__ = ["Picture"]

WIDTH = 400
_STYLE = """\
svg{font:13px system-ui,"Segoe UI",Helvetica,Arial,sans-serif;
--paper:#fff;--ink:#1f2328;--soft:#59636e;--line:#8c959f;--box:#f0f3f6;
--blue:#0969da;--blues:#ddf4ff;--green:#1a7f37;--greens:#dafbe1;
--red:#cf222e;--reds:#ffebe9}
@media(prefers-color-scheme:dark){svg{
--paper:#0d1117;--ink:#f0f6fc;--soft:#9198a1;--line:#6e7681;--box:#212830;
--blue:#4493f8;--blues:#12243d;--green:#3fb950;--greens:#12301b;
--red:#f85149;--reds:#3c1618}}
text{fill:var(--ink)}
.sql{font:12px ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.b{font-weight:600}.soft{fill:var(--soft);
paint-order:stroke;stroke:var(--paper);stroke-width:4px}.blue{fill:var(--blue)}
.green{fill:var(--green)}.red{fill:var(--red)}
rect,path,circle{fill:none;stroke:var(--line);stroke-width:1.4}
.paper{fill:var(--paper);stroke:none}.box{fill:var(--box)}
.blues{fill:var(--blues);stroke:var(--blue)}
.greens{fill:var(--greens);stroke:var(--green)}
.reds{fill:var(--reds);stroke:var(--red)}
.thin{stroke-dasharray:3 3}.to{marker-end:url(#a)}#a path{fill:var(--line);stroke:none}
"""
_ARROW = (
    '<marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
    'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z"/></marker>'
)


class Picture:
    """Shapes and texts, each on a line of the file. Sizes are pixels at 400 wide."""

    def __init__(self, title: str, description: str) -> None:
        self._title = title
        self._description = description
        self._shapes: list[str] = []

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        kind: str,
        radius: int = 6,
    ) -> None:
        self._shapes.append(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" '
            f'height="{height:g}" rx="{radius}"/>'
        )

    def text(
        self, x: float, y: float, words: str, kind: str = "", anchor: str = "start"
    ) -> None:
        where = f'x="{x:g}" y="{y:g}"'
        look = f' class="{kind}"' if kind else ""
        side = f' text-anchor="{anchor}"' if anchor != "start" else ""
        self._shapes.append(f"<text {where}{look}{side}>{escape(words)}</text>")

    def path(self, points: Sequence[tuple[float, float]], kind: str = "to") -> None:
        steps = " ".join(f"{x:g} {y:g}" for x, y in points)
        self._shapes.append(f'<path class="{kind}" d="M{steps}"/>')

    def dot(self, x: float, y: float, radius: float, kind: str) -> None:
        self._shapes.append(
            f'<circle class="{kind}" cx="{x:g}" cy="{y:g}" r="{radius:g}"/>'
        )

    def render(self, height: float) -> str:
        return "\n".join(
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} '
                f'{height:g}" width="{WIDTH}" role="img">',
                f"<title>{escape(self._title)}</title>",
                f"<desc>{escape(self._description)}</desc>",
                f"<style>\n{_STYLE}</style>",
                f"<defs>{_ARROW}</defs>",
                f'<rect class="paper" width="{WIDTH}" height="{height:g}" rx="8"/>',
                *self._shapes,
                "</svg>\n",
            )
        )
