"""`archlbr decode`: a register, a component-15 image or a CPUID dump in words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from archlbr.cli.formats import Format
from archlbr.cli.inputs import read_bytes, read_text
from archlbr.errors import InputError

if TYPE_CHECKING:
    from archlbr.decode.component import Entry, Image
    from archlbr.decode.dump import Dump, Leaves
    from archlbr.decode.register import Register

VERSION = 1
WHAT = "give MSR and VALUE, or --xsave FILE, or --cpuid FILE"


def decode(
    msr: Annotated[
        str | None,
        typer.Argument(metavar="MSR", help="A name (IA32_LBR_CTL, LBR_CTL, MSR_ARCH_LBR_CTL) or a hexadecimal number."),
    ] = None,
    value: Annotated[
        str | None,
        typer.Argument(metavar="VALUE", help="Its value in hexadecimal, with or without 0x, as rdmsr prints."),
    ] = None,
    bits: Annotated[str | None, typer.Option("-f", metavar="H:L", help="Print these bits alone, as rdmsr -f.")] = None,
    xsave: Annotated[
        str | None, typer.Option("--xsave", metavar="FILE", help="A component-15 image, or a compacted XSAVE area.")
    ] = None,
    cpuid: Annotated[
        str | None,
        typer.Option(
            "--cpuid", metavar="FILE", help="`cpuid -r` text (- for stdin); with --xsave: the components' sizes."
        ),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to print the result.")] = Format.TEXT,
) -> None:
    """Put a register, a component-15 image or CPUID leaves in words.

    Numbers are hexadecimal, with or without 0x or a final H: 345 is MSR 345H.
    """
    from archlbr.decode.component import read_image
    from archlbr.decode.dump import read_dump
    from archlbr.decode.names import parse_bits, parse_msr, parse_value
    from archlbr.decode.register import describe

    dumps = read_dump(read_text(cpuid), cpuid) if cpuid is not None else ()
    if msr is None and (xsave is not None or dumps) and bits is None:
        if xsave is not None:
            image = read_image(read_bytes(xsave), xsave, dumps[0].leaves if dumps else None)
            print(image_json(image) if form is Format.JSON else image_text(image))
        else:
            print(cpuid_json(dumps) if form is Format.JSON else cpuid_text(dumps))
        return
    if msr is None or value is None or xsave is not None or dumps:
        raise InputError(f"nothing to decode, or two things at once: {WHAT}")
    register = describe(parse_msr(msr), parse_value(value))
    if bits is not None:
        high, low = parse_bits(bits)
        print(f"{register.value >> low & (1 << high - low + 1) - 1:x}")
    else:
        print(
            json.dumps(_document("msr", register_fields(register)), indent=2)
            if form is Format.JSON
            else register_text(register)
        )


def register_text(register: Register) -> str:
    """Return a register as a heading, a line a field, and its notes."""
    lines = [f"{register.name} ({register.msr:X}H) = {register.value:#018x}"]
    width = max(len(row.name) for row in register.rows)
    for row in register.rows:
        place = f"{row.high}:{row.low}" if row.high != row.low else str(row.low)
        content = str(row.value) if row.high == row.low else f"{row.value:#x}"
        lines.append(f"  {place:>5}  {row.name:<{width}}  {content:<{_content_width(register)}}  {row.words}".rstrip())
    return "\n".join(lines + [f"  note: {note}" for note in register.notes])


def register_fields(register: Register) -> dict[str, object]:
    """Return what the `msr` document of docs/formats.md says of a register."""
    rows = [
        {"name": row.name, "high": row.high, "low": row.low, "value": f"{row.value:#x}", "words": row.words}
        for row in register.rows
    ]
    return {
        "name": register.name,
        "index": f"{register.msr:#x}",
        "value": f"{register.value:#x}",
        "fields": rows,
        "reserved": f"{register.reserved:#x}",
        "notes": list(register.notes),
    }


def image_text(image: Image) -> str:
    """Return an image as its header, its registers and a line a record."""
    lines = [f"component 15, {'alone' if image.xcomp_bv is None else f'at byte {image.offset}'}"]
    if image.xcomp_bv is not None:
        lines.append(f"XSTATE_BV = {image.xstate_bv:#018x}  XCOMP_BV = {image.xcomp_bv:#018x}")
    lines += [register_text(image.ctl), f"IA32_LBR_DEPTH (14CFH) = {image.depth}"]
    lines.append(f"last exception: {_record(image.ler)}" if image.ler.from_ip else "last exception: none")
    lines.append(f"{len(image.entries)} of {image.depth} entries, newest first")
    lines += [f"  {entry.x:>2}  {_record(entry)}" for entry in image.entries]
    return "\n".join(lines + [f"note: {note}" for note in image.notes])


def image_json(image: Image) -> str:
    """Return the `xsave` document of docs/formats.md."""
    content: dict[str, object] = {
        "offset": image.offset,
        "xstate_bv": None if image.xstate_bv is None else f"{image.xstate_bv:#x}",
        "xcomp_bv": None if image.xcomp_bv is None else f"{image.xcomp_bv:#x}",
        "ctl": register_fields(image.ctl),
        "depth": image.depth,
        "ler": _entry_fields(image.ler) if image.ler.from_ip else None,
        "entries": [{"index": entry.x, **_entry_fields(entry)} for entry in image.entries],
        "notes": list(image.notes),
    }
    return json.dumps(_document("xsave", content), indent=2)


def cpuid_text(dumps: tuple[Dump, ...]) -> str:
    """Return the leaves of each processor; processors with the same leaves share a heading."""
    from archlbr.decode.leaves import contradictions, describe_leaves

    lines: list[str] = []
    for names, leaves in _alike(dumps):
        lines.append(f"{', '.join(names)}:")
        for facts in describe_leaves(leaves):
            lines.append(f"  leaf {facts.leaf}" + ("" if facts.present else ": not in the dump"))
            if facts.present:
                lines += [f"    {name:<38}{_fact(content)}" for _, name, content in facts.rows]
        lines += [f"  note: {sentence}" for sentence in contradictions(leaves)]
    return "\n".join(lines)


def cpuid_json(dumps: tuple[Dump, ...]) -> str:
    """Return the `cpuid` document of docs/formats.md."""
    from archlbr.decode.leaves import contradictions, describe_leaves

    processors = [
        {
            "names": names,
            "leaves": {
                facts.leaf: {key: content for key, _, content in facts.rows} if facts.present else None
                for facts in describe_leaves(leaves)
            },
            "contradictions": list(contradictions(leaves)),
        }
        for names, leaves in _alike(dumps)
    ]
    return json.dumps(_document("cpuid", {"processors": processors}), indent=2)


def _document(kind: str, content: dict[str, object]) -> dict[str, object]:
    return {"version": VERSION, "kind": kind, **content}


def _content_width(register: Register) -> int:
    return max(1 if row.high == row.low else len(f"{row.value:#x}") for row in register.rows)


def _record(entry: Entry) -> str:
    cycles = "-" if entry.cycles is None else str(entry.cycles)
    words = f"{entry.from_ip:#018x} -> {entry.to_ip:#018x}  {entry.kind:<8}  {cycles:>5} cycles"
    return f"{words}  {', '.join(entry.flags)}".rstrip()


def _entry_fields(entry: Entry) -> dict[str, object]:
    return {
        "from": f"{entry.from_ip:#x}",
        "to": f"{entry.to_ip:#x}",
        "info": f"{entry.info:#x}",
        "kind": entry.kind,
        "cycles": entry.cycles,
        "flags": list(entry.flags),
    }


def _alike(dumps: tuple[Dump, ...]) -> list[tuple[list[str], Leaves]]:
    """Return (names, leaves) for each distinct description: a hybrid's cores differ, the others do not."""
    from archlbr.decode.leaves import describe_leaves

    groups: dict[object, tuple[list[str], Leaves]] = {}
    for dump in dumps:
        groups.setdefault(describe_leaves(dump.leaves), ([], dump.leaves))[0].append(dump.name)
    return list(groups.values())


def _fact(content: int | bool | tuple[int, ...]) -> str:
    if isinstance(content, bool):
        return "yes" if content else "no"
    if isinstance(content, tuple):
        return ", ".join(map(str, content)) or "none"
    return str(content)
