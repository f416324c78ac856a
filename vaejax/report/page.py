"""A report as one self-contained HTML page, and the same numbers as JSON."""

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from vaejax.evaluate import MeanEstimate
from vaejax.evaluate.summary import count_in_words


class Entry(NamedTuple):
    """One number with its uncertainty and its definition.

    Attributes:
        name: what it is called.
        value: a number, or a word.
        error: its standard error, or None where there is none.
        definition: what it is, how its error is meant, and its source.
        unit: ``"nats"``, or nothing.
        monte_carlo_error: the part of the random numbers in the error, where the two are told apart.
        seconds: that it took, where that is long.
    """

    name: str
    value: Any
    error: float | None
    definition: str
    unit: str = ""
    monte_carlo_error: float | None = None
    seconds: float | None = None


class Section(NamedTuple):
    """A part of a report.

    Attributes:
        title: its heading.
        lead: a sentence or two on what it asks, and of which data.
        entries: its numbers.
        notes: what they say together.
        figures: by name, with a caption each.
        columns: per-example numbers, for the JSON file alone.
    """

    title: str
    lead: str
    entries: tuple[Entry, ...] = ()
    notes: tuple[str, ...] = ()
    figures: Mapping[str, tuple[Figure, str]] = {}
    columns: Mapping[str, Any] = {}


def of_mean(name: str, mean: MeanEstimate, definition: str, *, seconds: float | None = None) -> Entry:
    """The entry of a mean over examples, nats."""
    says = f"{definition} ± between {count_in_words(mean.num_examples)} examples."
    return Entry(name, mean.mean, mean.standard_error, says, "nats", mean.monte_carlo_error, seconds)


def as_dict(about: Mapping[str, Any], sections: Iterable[Section]) -> dict[str, Any]:
    """The report for a JSON file: everything but the figures."""
    return {
        "about": dict(about),
        "sections": [
            {
                "title": section.title,
                "lead": section.lead,
                "entries": [
                    {k: v for k, v in entry._asdict().items() if v not in (None, "")} for entry in section.entries
                ],
                "notes": list(section.notes),
                "columns": {name: np.asarray(column).tolist() for name, column in section.columns.items()},
            }
            for section in sections
        ],
    }


def as_html(title: str, about: Mapping[str, Any], sections: Iterable[Section]) -> str:
    """The report as one page that needs no other file.

    Examples:
        >>> text = as_html("A run", {"data": "digits"}, [Section("Density", "", (Entry("ELBO", -1.0, 0.1, "a bound", "nats"),))])
        >>> "−1.00" in text and "± 0.10" in text
        True
    """
    made = list(sections)
    contents = "".join(f'<a href="#{_anchor(s)}">{html.escape(s.title)}</a>' for s in made)
    facts = "".join(f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd></div>" for k, v in about.items())
    body = "\n".join(_section(section) for section in made)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n'
        f'<link rel="icon" href="data:,">\n<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n'
        f"<h1>{html.escape(title)}</h1>\n<dl>{facts}</dl>\n<nav>{contents}</nav>\n{body}\n</body>\n</html>\n"
    )


def _anchor(section: Section) -> str:
    return "".join(c if c.isalnum() else "-" for c in section.title.lower())


def _section(section: Section) -> str:
    parts = [f'<section id="{_anchor(section)}">\n<h2>{html.escape(section.title)}</h2>']
    if section.lead:
        parts.append(f"<p>{html.escape(section.lead)}</p>")
    if section.entries:
        timed = any(entry.seconds is not None for entry in section.entries)
        heads = ["quantity", "value", "what it is", *(["time"] if timed else [])]
        head = "".join(f'<th scope="col">{name}</th>' for name in heads)
        rows = "\n".join(_row(entry, timed) for entry in section.entries)
        parts.append(f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>")
    if section.notes:
        parts.append("<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in section.notes) + "</ul>")
    parts += [_figure(name, figure, caption) for name, (figure, caption) in section.figures.items()]
    return "\n".join([*parts, "</section>"])


def _row(entry: Entry, timed: bool) -> str:
    spent = "" if entry.seconds is None else _duration(entry.seconds)
    cells = [
        f'<th scope="row">{html.escape(entry.name)}</th>',
        f'<td class="number">{_value(entry)}</td>',
        f"<td>{html.escape(entry.definition)}</td>",
        *([f'<td class="number">{spent}</td>'] if timed else []),
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _value(entry: Entry) -> str:
    if not isinstance(entry.value, int | float | np.number):
        return html.escape(str(entry.value))
    unit = f" {entry.unit}" if entry.unit else ""
    error = entry.error if entry.error is not None and math.isfinite(entry.error) else None
    digits = decimals(entry.value, error)
    text = _signed(entry.value, digits)
    if error is not None:
        text += f" <small>± {error:.{digits}f}</small>"
    text += html.escape(unit)
    monte_carlo = entry.monte_carlo_error
    if monte_carlo and math.isfinite(monte_carlo):
        text += f"<br><small>Monte Carlo ± {monte_carlo:.{max(digits, decimals(0.0, monte_carlo))}f}</small>"
    return text


def decimals(value: Any, error: float | None) -> int:
    """How many decimals a number is given with: two digits of its error, or some four of its own.

    Examples:
        >>> decimals(-98.56, 0.98), decimals(12.3, 0.0123), decimals(10, None), decimals(0.12345, None)
        (2, 3, 0, 4)
    """
    if isinstance(value, int | np.integer):
        return 0
    if error:
        return int(min(6, max(0, 1 - math.floor(math.log10(error)))))
    if not math.isfinite(value) or value == 0:
        return 2
    return int(min(6, max(0, 3 - math.floor(math.log10(abs(value))))))


def _signed(value: Any, digits: int) -> str:
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return "not defined" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    return f"{value:.{digits}f}".replace("-", "−")


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _figure(name: str, figure: Figure, caption: str) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    data = base64.b64encode(stream.getvalue()).decode()
    width = round(figure.get_size_inches()[0] * 96)
    return (
        f'<figure id="figure-{html.escape(name)}"><img alt="{html.escape(caption)}" width="{width}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; max-width: 62rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid #d5dae0; }
p, li, figcaption { max-width: 48rem; }
dl { display: flex; flex-wrap: wrap; gap: .25rem 2rem; margin: 0 0 1rem; color: #4a525c; }
dl div { display: flex; gap: .4rem; } dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
a { color: #1a5fb4; }
table { border-collapse: collapse; width: 100%; margin: .75rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid #e6e9ed; }
thead th { color: #4a525c; font-weight: 600; } tbody th { font-weight: 600; min-width: 8rem; }
.number { white-space: nowrap; font-variant-numeric: tabular-nums; } small { color: #4a525c; font-size: .85em; }
figure { margin: 1.25rem 0; } img { max-width: 100%; height: auto; } figcaption { color: #4a525c; font-size: .9rem; }
@media (max-width: 40rem) { table, tbody, tr, th, td { display: block; border: 0; } thead { display: none; } tr { margin: .75rem 0; } }
"""
