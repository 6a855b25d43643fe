"""`pygen report`: one page of what one or several runs have learned."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pygen
from pygen.cli import evaluation, options, report_codes, report_sections
from pygen.cli.evaluate import run_folders
from pygen.cli.report_facts import facts
from pygen.cli.report_subject import Subject, subjects
from pygen.cli.runs import REPORT
from pygen.files import write_file
from pygen.pictures import grid
from pygen.random import as_seed
from pygen.report import Figure, Page, Part, Section, Table, is_page, render

# Samples of a run beside those of others: so many rows and columns.
_SIDE = 5


def run(asked: options.Report) -> None:
    """Carry out `pygen report`."""
    folders = run_folders(asked.runs)
    out = asked.out or _place(folders)
    _check_place(out)
    runs = subjects(folders, as_seed(asked.seed))
    write_file(out, render(page(runs)).encode())
    print(out)


def page(runs: Sequence[Subject]) -> Page:
    """Return the page of runs; of several it begins with a comparison."""
    figures = _evaluations(runs)
    parts = [part(of) for of in runs]
    generator = f"pygen {pygen.__version__}"
    if len(parts) == 1:
        (only,) = parts
        return Page(
            f"{runs[0].kind} of {runs[0].data}",
            only.lead,
            only.sections,
            figures,
            only.facts,
            generator=generator,
            is_wide=True,
        )
    data = sorted({of.data for of in runs})
    return Page(
        title=f"{len(runs)} models of {' and '.join(data)}",
        lead="What each has learned, side by side and one by one.",
        generator=generator,
        sections=[_side_by_side(runs)],
        tables=[_sizes(runs), *figures],
        parts=parts,
        is_wide=True,
    )


def part(of: Subject) -> Part:
    """Return what a page shows of one run."""
    sections: list[Section | None] = [report_sections.samples(of)]
    if hasattr(of.model, "encode"):
        sections += [report_sections.reconstructions(of), *report_codes.sections(of)]
    if hasattr(of.model, "interpolate"):
        sections.append(report_sections.interpolations(of))
    sections += [
        report_sections.components(of),
        report_sections.class_means(of),
        report_sections.neighbours(of),
        report_sections.curves(of),
    ]
    channels, height, width = of.record.image_shape
    lead = (
        f"{of.kind} fitted to {of.record.n_images:,} images of {of.record.data}, "
        f"{height} x {width} pixels{' in colour' if channels > 1 else ''}."
    )
    return Part(
        title=of.name,
        lead=lead,
        sections=[section for section in sections if section is not None],
        facts=facts(of),
    )


def _place(folders: Sequence[Path]) -> Path:
    if len(folders) == 1:
        return folders[0] / REPORT
    common = Path(os.path.commonpath([folder.absolute().parent for folder in folders]))
    here = Path.cwd()
    return (common.relative_to(here) if common.is_relative_to(here) else common) / REPORT


def _check_place(out: Path) -> None:
    """Refuse, before the work, a file that cannot be written at its end, or that pygen did not make."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{out}: expected a name that ends in .html, found {out.name!r}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out}: expected the folder {out.parent} to exist; make it first")
    if out.exists() and not is_page(out.read_bytes()):
        raise ValueError(f"{out}: expected a page of pygen or none, found another; move it")


def _side_by_side(runs: Sequence[Subject]) -> Section:
    """Real images, then samples of each run."""
    count = _SIDE * _SIDE
    figures: list[Figure] = []
    seen = set()
    for of in runs:
        of_data = (of.record.data, of.record.image_size)
        if of_data not in seen:
            seen.add(of_data)
            alt = f"Real images of {of.data}"
            real = Figure(grid(of.some(count)[0], _SIDE), alt, f"Real: {of.data}")
            figures.insert(len(seen) - 1, real)
    for of in runs:
        alt = f"{count} samples of {of.name}, {of.kind}"
        figures.append(Figure(grid(of.sample(count), _SIDE), alt, f"{of.name}: {of.kind}"))
    text = (
        "Real images, and samples of every model as they come, each class as often as in the data."
    )
    return Section("Side by side", text, figures, is_dense=True)


def _sizes(runs: Sequence[Subject]) -> Table:
    columns = ("run", "parameters", "size", "fit")
    rows = []
    for of in runs:
        about = facts(of)
        time = about.get("Fit", "").partition(",")[0]
        rows.append((of.name, about["Parameters"], about["Size"], time))
    return Table("Models", columns, rows)


def _evaluations(runs: Sequence[Subject]) -> list[Table]:
    """Stored figures, a table for each group that can be compared; and how to get those that are missing."""
    groups: list[list[evaluation.Evaluation]] = []
    tables: list[Table] = []
    missing = []
    for of in runs:
        found = evaluation.read(of.folder)
        if found is None:
            missing.append(str(of.folder))
            continue
        for i, group in enumerate(groups):
            with suppress(ValueError):  # not comparable
                tables[i] = evaluation.table([*group, found])
                group.append(found)
                break
        else:
            groups.append([found])
            tables.append(evaluation.table([found]))
    if missing:
        command = shlex.join(["pygen", "evaluate", *missing])
        note = f"Not judged yet: {command} does that, and a page made afterwards has the figures."
        tables.append(Table("Figures", (), (), [note]))
    return tables
