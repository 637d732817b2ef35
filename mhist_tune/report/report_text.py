"""A report as text for a terminal and as Markdown."""

import re
from collections.abc import Sequence

from mhist_tune.definition.scores import SCORE_NAMES
from mhist_tune.report import confirmation, cost, more_trials, provenance, repetitions, report_tables, status_text
from mhist_tune.report.document import Cost, Report
from mhist_tune.report.figures import ReportFigure
from mhist_tune.search.audit import Audit
from mhist_tune.words import Rows, counted, duration, markdown_table, ordinal, settings, text_table


def to_table(report: Report) -> str:
    """Return a report as text: one line per seed, mean and standard deviation, and every opening of the test set."""
    lines = text_table(report_tables.seed_rows(report))
    return "\n".join([headline(report), "", report.result, "", *lines, "", *report.caveats, "", *opening_lines(report)])


def to_markdown(report: Report, figures: Sequence[ReportFigure]) -> str:
    """Return a report as Markdown with links to the figures' files beside it."""
    parts = [f"# {headline(report)}", report.result]
    parts += [f"## {title}\n\n{text}" for title, text in sections(report, figures)]
    return "\n\n".join(parts) + "\n"


def sections(report: Report, figures: Sequence[ReportFigure]) -> list[tuple[str, str]]:
    """Return the sections of a report in their order: the title, which the page has too, and the text as Markdown."""
    repeat = "```\n" + "\n".join(report.commands) + "\n```"
    notes = report_tables.notes(report)
    identity = "\n".join(f"- {name}: {fact}" for name, fact in facts(report).items())
    return [
        *((title, _with_notes(rows, notes.get(title, ()))) for title, rows in report_tables.tables(report)),
        *((figure.title, f"![{figure.title}]({figure.name}.png)\n\n{figure.caption}") for figure in figures),
        ("Search", "\n".join(f"- {line}" for line in search_lines(report))),
        ("What limits these numbers", "\n".join(f"- {caveat}" for caveat in report.caveats)),
        ("Openings of the test partition", "\n".join(opening_lines(report))),
        *((title, _noted(rows, lines)) for title, rows, lines in noted(report)),
        ("Methods", report.methods),
        ("To repeat it", f"{repeat}\n\n{identity}"),
    ]


def noted(report: Report) -> list[tuple[str, Rows | None, list[str]]]:
    """Return the sections of a table, which may be missing, and of sentences: title, table, sentences."""
    return [
        (provenance.TITLE, None, provenance.lines(report.provenance)),
        (cost.TITLE, cost.rows(report.cost), cost.lines(report.cost)),
    ]


def _with_notes(rows: Rows, notes: Sequence[str]) -> str:
    return "\n".join(markdown_table(rows)) + (f"\n\n{' '.join(notes)}" if notes else "")


def anchor(title: str) -> str:
    """Return the anchor of a section, as GitHub makes it of a heading.

    >>> anchor("Calibration slope, at 0.5")
    'calibration-slope-at-05'
    """
    return re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-")


def to_note(report: Report) -> str:
    """Return a short report as Markdown: the result, the metrics, the caveats, the openings."""
    parts = [
        f"**{headline(report)}**",
        report.result,
        "\n".join(markdown_table(report_tables.metric_rows(report))),
        "\n".join(f"- {caveat}" for caveat in report.caveats),
        "\n".join(opening_lines(report)),
        f"[The whole report](/study/{report.study}/report)",
    ]
    return "\n\n".join(parts)


def headline(report: Report) -> str:
    """Return study, trial, number of images and of seeds."""
    n_seeds, n_planned = report.n_seeds, report.n_seeds_planned
    seeds = counted(n_seeds, "seed") if report.complete else f"only {n_seeds} of {n_planned} seeds have finished"
    return f"{report.study}, trial {report.trial.number}: {report.n_images} test images, {seeds}"


def search_lines(report: Report) -> list[str]:
    """Return sentences on the search: its size, missing importances, the audit, the confirmation, values at an edge."""
    search = report.search
    states = ", ".join(f"{count} {state.lower()}" for state, count in search.n_trials.items())
    lines = [f"Trials: {states}."]
    if search.n_trivial:
        lines.append(f"{status_text.trivial_text(search.n_trivial, None)}.")
    if search.importance.missing:
        lines.append(f"Hyperparameter importance: {search.importance.missing}.")
    n_trained = report.search_cost.n_epochs + report.confirm_cost.n_epochs
    if report.confirm and report.epochs_at_most:
        lines.append(
            f"Search and confirmation trained {report.search_cost.n_epochs:,} and {report.confirm_cost.n_epochs:,} "
            f"epochs. With all trials complete and all finalists on all folds it were {report.epochs_at_most:,}, so "
            f"what stopped early saved {1 - n_trained / report.epochs_at_most:.0%}."
        )
    lines += _audit_lines(search.audit, SCORE_NAMES[report.score])
    if report.confirm:
        lines += [f"{line[0].upper()}{line[1:]}." for line in confirmation.sentences(report.confirm)]
        lines.append(
            "The share of resamples of the train images in which a finalist is chosen measures how stable the choice "
            "is; it is not the probability that the finalist is the best."
        )
    if search.repetitions:
        lines += [f"{line[0].upper()}{line[1:]}." for line in repetitions.sentences(search.repetitions)]
    if search.more_trials and (advice := more_trials.sentence(search.more_trials)):
        lines.append(f"{advice}.")
    lines += [f"Edge of range: {alarm}." for alarm in search.edges]
    return lines


def _audit_lines(audit: Audit, score: str) -> list[str]:
    if audit.missing:
        return [f"Audit of the pruner: {audit.missing}."]
    assert audit.saved_s is not None
    assert audit.spent_s is not None
    assert audit.rank_correlation is not None
    best = (
        f"the best of them is {audit.lost_f1:.3f} above the best of all others in validation {score}"
        if audit.lost_f1
        else "none of them is better than the best of all others"
    )
    correlations = [f"{rho:.2f} after epoch {epoch}" for epoch, rho in audit.rank_correlation.items() if rho]
    return [
        f"Audit of the pruner: pruning saved about {duration(audit.saved_s)} on one device. "
        f"Of {audit.n_audited} trials that were finished regardless of their scores, {audit.n_would_have_ended} would "
        f"have been pruned; finishing them took {duration(audit.spent_s)}, and {best}.",
        f"Rank correlation of scores with those at the end: {', '.join(correlations)}.",
    ]


def opening_lines(report: Report) -> list[str]:
    """Return how often, when, by which study, by whom and why the test images were opened."""
    looks = report.looks
    by = ", ".join(dict.fromkeys(opening.study or "a deleted study" for opening in looks))
    head = f"The test partition was opened {counted(len(looks), 'time')}"
    if len(looks) > 1:
        head += f", by {by}; this report is of the {ordinal(report.look)} look at these images"
    lines = [f"{head}:"]
    for opening in report.all_openings:
        beside = "" if opening.default in (None, opening.trial) else f" and the default, trial {opening.default}"
        purpose = f"trial {opening.trial}{beside}, {counted(len(opening.seeds), 'seed')}"
        if opening.descriptive:
            rows = counted(len(opening.descriptive), "row")
            purpose = f"descriptive: early-stopped models of {rows}, {counted(len(opening.seeds), 'seed')}"
        failed = f". It failed before any prediction: {opening.failed}" if opening.failed else ""
        study = opening.study or "a deleted study"
        lines.append(f"- {opening.opened_at} by {opening.by}, {study}, {purpose}: {opening.reason}{failed}")
    return lines


def facts(report: Report) -> dict[str, str]:
    """Return what identifies the run: params, epochs, cost, hashes, versions."""
    trial = report.trial
    opening = next(row for row in report.test_openings if row.id == report.opening)
    facts_by_name = {
        "Params": ", ".join(f"{name} = {value}" for name, value in trial.params.items()) or "none searched",
        "Epochs": f"best {trial.best_epoch}, stopped {trial.stopped_epoch}, "
        f"configured {trial.configured_epochs}; retrained for {report.stop_epoch}",
        **({"Settings": settings(report.settings)} if report.settings else {}),
        "Training of the seeds": _spent(report.training_speed),
        "Search": _spent(report.search_cost),
        **({"Confirming": _spent(report.confirm_cost)} if report.confirm else {}),
        "Study definition": f"SHA-256 {report.definition_sha256}",
        "Train partition": f"SHA-256 {report.dataset_fingerprint}",
        "Test partition": f"SHA-256 {opening.test_fingerprint}",
        "Opening": f"{opening.id}, SHA-256 {opening.hash} in the chain of openings",
        "Versions": ", ".join(f"{name} {release}" for name, release in report.versions.items()),
        "Predictions": "predictions.csv",
    }
    if report.weight_files:
        facts_by_name["Starting weights"] = "; ".join(
            f"{name}, SHA-256 {sha256}" for name, sha256 in report.weight_files.items()
        )
    return facts_by_name


def _noted(rows: Rows | None, lines: Sequence[str]) -> str:
    table = [*markdown_table(rows), ""] if rows else []
    return "\n".join([*table, *(f"- {line}" for line in lines)])


def _spent(cost: Cost) -> str:
    text = f"{counted(cost.n_epochs, 'epoch')} in {duration(cost.elapsed_s)}"
    if cost.images_per_s is not None:
        text += f", {cost.images_per_s:.0f} images/s in training"
    if cost.peak_memory_bytes is not None:
        text += f", at most {cost.peak_memory_bytes / 2**20:.0f} MiB"
    return text
