"""The pictures of README and site, each for a light and a dark page: who is frozen, what trains; the way of the data.

python docs/figures/draw.py
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).parent
FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif"


@dataclass(frozen=True)
class Palette:
    """Colours of a page: words, lines, and for each kind of box its fill and its edge."""

    ink: str
    line: str
    boxes: dict[str, tuple[str, str]]


PALETTES = {
    "light": Palette(
        ink="#1f2328",
        line="#656d76",
        boxes={"trains": ("#fff1d6", "#bf8700"), "frozen": ("#ddf4ff", "#0969da"), "data": ("#f6f8fa", "#8c959f")},
    ),
    "dark": Palette(
        ink="#e6edf3",
        line="#8d96a0",
        boxes={"trains": ("#3a2d0c", "#d29922"), "frozen": ("#0c2d4d", "#58a6ff"), "data": ("#161b22", "#6e7681")},
    ),
}


class Picture:
    """An SVG in the making; lengths in pixels."""

    def __init__(self, width: int, height: int, title: str, palette: Palette) -> None:
        self.palette = palette
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" font-family="{FONT}" font-size="13.5">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0 L8 4 L0 8 z" fill="{palette.line}"/></marker></defs>',
        ]

    def box(self, x: int, y: int, width: int, height: int, kind: str, *lines: str, top: bool = False) -> None:
        """A box of a kind with lines of words, in its middle or at its top."""
        fill, edge = self.palette.boxes[kind]
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="7" fill="{fill}" stroke="{edge}" '
            'stroke-width="1.5"/>'
        )
        start = y + 20 if top else y + height / 2 + 5 - 9 * (len(lines) - 1)
        for number, line in enumerate(lines):
            self.words(x + width // 2, start + 18 * number, line, bold=top and number == 0)

    def words(self, x: float, y: float, text: str, anchor: str = "middle", bold: bool = False) -> None:
        """A line of words."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{self.palette.ink}"{weight}>{escape(text)}</text>'
        )

    def arrow(self, *points: tuple[int, int]) -> None:
        """A line through points, with a tip at its end."""
        way = " ".join(f"{x},{y}" for x, y in points)
        self.parts.append(
            f'<polyline points="{way}" fill="none" stroke="{self.palette.line}" stroke-width="1.5" '
            'marker-end="url(#tip)"/>'
        )

    def __str__(self) -> str:
        return "\n".join([*self.parts, "</svg>"]) + "\n"


def plug_in(palette: Palette) -> Picture:
    """Who is frozen, what trains."""
    title = "Audio and vision pass the plug-in, which trains; the frozen LLM reads its pseudo tokens before the text"
    picture = Picture(860, 300, title, palette)
    for y, name in ((52, "audio frames"), (122, "vision frames"), (222, "text")):
        picture.box(10, y, 118, 44, "data", name)
    picture.box(158, 14, 356, 172, "trains", "the plug-in: trains, 0.7 to 2.8 M parameters", top=True)
    for y in (52, 122):
        picture.box(176, y, 84, 44, "data", "LSTM")
        picture.arrow((128, y + 22), (174, y + 22))
    picture.box(286, 72, 96, 74, "data", "Text-Guide-", "Mixer")
    picture.box(408, 72, 90, 74, "data", "Multi-Scale", "Fusion")
    picture.arrow((260, 74), (272, 74), (272, 94), (284, 94))
    picture.arrow((260, 144), (272, 144), (272, 124), (284, 124))
    picture.arrow((382, 109), (406, 109))
    picture.arrow((128, 236), (334, 236), (334, 148))
    picture.words(344, 212, "guided by what was said", "start")
    picture.box(548, 78, 108, 62, "trains", "a few", "pseudo tokens")
    picture.arrow((498, 109), (546, 109))
    picture.arrow((128, 254), (668, 254), (668, 160), (688, 160))
    picture.box(690, 14, 160, 172, "frozen", "the LLM: frozen", "135 M to 72 B", "keeps all it can do", top=True)
    picture.arrow((656, 109), (688, 109))
    picture.arrow((770, 186), (770, 220))
    picture.box(690, 222, 160, 62, "data", "joy .81, anger .07 …", "or −1.2")
    return picture


def way_of_the_data(palette: Palette) -> Picture:
    """From files to a report."""
    picture = Picture(860, 190, "The way of the data, from files to a report", palette)
    upper = [
        ("data", "files"),
        ("data", "rows,", "checked"),
        ("data", "Arrow cache,", "unpadded"),
        ("data", "batch,", "conditioned"),
        ("trains", "adapter:", "pseudo tokens"),
        ("frozen", "prompt +", "frozen LLM"),
        ("data", "scores of", "all labels"),
    ]
    for number, (kind, *lines) in enumerate(upper):
        picture.box(10 + 122 * number, 14, 104, 62, kind, *lines)
        if number:
            picture.arrow((10 + 122 * number - 18, 45), (10 + 122 * number - 2, 45))
    picture.arrow((794, 76), (794, 112))
    picture.box(742, 114, 104, 62, "data", "metrics with", "intervals")
    picture.arrow((742, 145), (722, 145))
    picture.box(616, 114, 104, 62, "data", "report")
    picture.arrow((742, 60), (730, 60), (730, 96), (550, 96), (550, 112))
    picture.box(498, 114, 104, 62, "data", "loss")
    picture.arrow((498, 145), (478, 145))
    picture.box(372, 114, 104, 62, "trains", "step:", "adapter alone")
    return picture


PICTURES = {"plug-in": plug_in, "way-of-the-data": way_of_the_data}


def drawn() -> Iterator[tuple[str, str]]:
    """Each file's name and what is in it."""
    for name, draw in PICTURES.items():
        for page, palette in PALETTES.items():
            yield f"{name}-{page}.svg", str(draw(palette))


def main() -> None:
    """Write the files."""
    for name, text in drawn():
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
