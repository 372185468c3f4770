"""Drawings of everything that is not a report: a model, a measurement, the passes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import get_args

from rich.console import Console, Group
from rich.text import Text

from compressor.data import Settings
from compressor.passes import Pass
from compressor.render import words
from compressor.render.sections import Section, kernels
from compressor.render.terminal import table
from compressor.report import Inspection, Measurement

_MOST_NODES = 8


def draw_inspection(found: Inspection, every_layer: bool, console: Console) -> None:
    """Print what is in a model."""
    facts = [
        ("file", f"{words.size(found.file_bytes)}, opset {found.opset}{_by(found.producer)}"),
        *(("input" if not i else "", text) for i, text in enumerate(found.inputs)),
        *(("output" if not i else "", text) for i, text in enumerate(found.outputs)),
        ("parameters", words.count(found.parameters)),
        ("nodes", _nodes(found)),
    ]
    if found.macs:
        facts.append(("MACs", f"{words.count(found.macs)} for one sample"))
    if found.quantized:
        facts.append(("quantized", f"{found.quantized} layers are quantized already"))
    _section(console, Section(found.path, ("", ""), tuple(facts)))
    if found.layers:
        _section(console, _layer_types(found))
    if every_layer:
        _section(console, _layers(found))
    if found.groups:
        _section(console, _groups(found))
        _section(console, _frozen(found))
    if found.spectrum:
        _section(console, _spectrum(found))
    for note in found.notes:
        console.print(Text(f"note: {note}", style="dim"))
    if found.note:
        console.print(Text(f"MACs not counted: {found.note}", style="dim"))


def draw_measurement(found: Measurement, threads: int, console: Console) -> None:
    """Print what one model costs."""
    rows = [
        ("file", words.size(found.file_bytes)),
        ("latency, median", words.milliseconds(found.latency_ms)),
        ("latency, p95", words.milliseconds(found.latency_p95_ms)),
        ("threads", str(threads)),
        ("MACs", "–" if found.macs is None else words.count(found.macs)),
        ("peak memory", words.size(found.peak_memory_bytes or 0)),
        ("kernels", kernels(found) or "–"),
    ]
    _section(console, Section(found.path, ("", ""), tuple(rows)))


def draw_passes(passes: Sequence[type[Pass]], console: Console) -> None:
    """Print one line per pass."""
    rows = tuple((str(p.model_fields["type"].default), _first_line(p)) for p in passes)
    _section(console, Section("Passes", ("type", "what"), rows))


def draw_fields(step: type[Pass], console: Console) -> None:
    """Print the fields of a pass, with their defaults; those of nested settings behind a dot."""
    rows = tuple(_fields(step, [name for name in step.model_fields if name != "type"]))
    console.print(Text(_first_line(step)), "")
    _section(console, Section(str(step.model_fields["type"].default), ("field", "default", "what"), rows))


def _section(console: Console, section: Section) -> None:
    console.print(Group(Text(section.title, style="bold"), table(section), ""))


def _by(producer: str) -> str:
    return f", by {producer}" if producer else ""


def _nodes(found: Inspection) -> str:
    entries = [f"{count} {op_type}" for op_type, count in found.nodes.items()]
    more = f" and {len(entries) - _MOST_NODES} other types" if len(entries) > _MOST_NODES else ""
    return f"{sum(found.nodes.values())}: {', '.join(entries[:_MOST_NODES])}{more}"


def _layer_types(found: Inspection) -> Section:
    counts = Counter(layer.layer for layer in found.layers)
    rows = []
    for layer_type, count in counts.most_common():
        members = [layer for layer in found.layers if layer.layer == layer_type]
        sizes = words.size(sum(layer.nbytes for layer in members))
        macs = sum(layer.macs or 0 for layer in members)
        rows.append((layer_type, str(count), sizes, words.count(macs) if macs else "–"))
    return Section("Weights by layer type", ("type", "weights", "bytes", "MACs"), tuple(rows))


def _layers(found: Inspection) -> Section:
    rows = tuple(
        (
            layer.name,
            layer.layer,
            "×".join(map(str, layer.shape)),
            layer.dtype,
            words.size(layer.nbytes),
            "–" if layer.macs is None else words.count(layer.macs),
        )
        for layer in found.layers
    )
    return Section("Weights", ("layer", "type", "shape", "stored as", "bytes", "MACs"), rows)


def _groups(found: Inspection) -> Section:
    rows = tuple(
        (
            group.name,
            group.kind.replace("_", " "),
            str(group.width),
            f"{len(group.makers)} make, {len(group.readers)} read",
            words.count(group.parameters),
        )
        for group in found.groups
        if not group.reason
    )
    return Section("Groups that can be pruned", ("group", "units", "width", "layers", "parameters each"), rows)


def _frozen(found: Inspection) -> Section:
    rows = tuple(
        (group.name, group.kind.replace("_", " "), str(group.width), group.reason)
        for group in found.groups
        if group.reason
    )
    return Section("Groups that must stay", ("group", "units", "width", "why"), rows)


def _spectrum(found: Inspection) -> Section:
    rows = tuple(
        (entry.name, entry.layer, str(entry.rank), *(f"{share:.1%}" for share in entry.kept), str(entry.even))
        for entry in found.spectrum
    )
    head = ("layer", "type", "rank", "at 25 %", "50 %", "75 %", "pays below")
    return Section("Power of the weights that is kept at a share of the full rank", head, rows)


def _first_line(step: type[Pass]) -> str:
    return (step.__doc__ or "").strip().splitlines()[0]


def _fields(settings: type[Settings], names: Iterable[str], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, default and description; of nested settings only what they add to those they extend."""
    for name in names:
        field = settings.model_fields[name]
        nested = _nested(field.annotation)
        default = "required" if field.is_required() else "–" if nested else _default(field.default)
        yield f"{prefix}{name}", default, field.description or ""
        if nested is not None:
            yield from _fields(nested, nested.__annotations__, f"{prefix}{name}.")


def _nested(annotation: object) -> type[Settings] | None:
    """The settings that a field takes, one or several of them; None for a plain value."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Settings)), None)


def _default(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
