"""A report as text for a terminal and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from mhist_tune import finalists
from mhist_tune.figures import ReportFigure
from mhist_tune.words import Rows, change, counted, duration, interval, markdown_table, number, settings, text_table

TABLE_COLUMNS = (
    ("Loss", "log_loss"),
    ("Precision", "precision"),
    ("Recall", "recall"),
    ("Specificity", "specificity"),
    ("F1", "f1"),
    ("Accuracy", "accuracy"),
    ("AUROC", "auroc"),
)
_METRIC_NAMES = {"auroc": "AUROC", "auprc": "AUPRC", "f1": "F1", "brier": "Brier score", "ece": "calibration error"}


def to_table(report: Mapping[str, Any]) -> str:
    """Return a report as text: one line per seed, mean and standard deviation, and every opening of the test set."""
    lines = text_table(seed_rows(report))
    return "\n".join(
        [headline(report), "", report["result"], "", *lines, "", *report["caveats"], "", *opening_lines(report)]
    )


def to_markdown(report: Mapping[str, Any], figures: Sequence[ReportFigure]) -> str:
    """Return a report as Markdown with links to the figures' files beside it."""
    parts = [f"# {headline(report)}", report["result"]]
    for title, rows in tables(report):
        parts += [f"## {title}", "\n".join(markdown_table(rows))]
    parts += [f"## {one.title}\n\n![{one.title}]({one.name}.png)\n\n{one.caption}" for one in figures]
    parts += [
        "## Search",
        "\n".join(f"- {line}" for line in search_lines(report)),
        "## What limits these numbers",
        "\n".join(f"- {caveat}" for caveat in report["caveats"]),
        "## Openings of the test partition",
        "\n".join(opening_lines(report)),
        "## Methods",
        report["methods"],
        "## To repeat it",
        "```\n" + "\n".join(report["commands"]) + "\n```",
        "\n".join(f"- {name}: {fact}" for name, fact in facts(report).items()),
    ]
    return "\n\n".join(parts) + "\n"


def to_note(report: Mapping[str, Any]) -> str:
    """Return the heart of a report as Markdown: the result, the metrics, what limits them, the openings."""
    parts = [
        f"**{headline(report)}**",
        report["result"],
        "\n".join(markdown_table(metric_rows(report))),
        "\n".join(f"- {caveat}" for caveat in report["caveats"]),
        "\n".join(opening_lines(report)),
        f"[The whole report](/study/{report['study']}/report)",
    ]
    return "\n\n".join(parts)


def tables(report: Mapping[str, Any]) -> list[tuple[str, Rows]]:
    """Return the report's tables with their titles; the first row of each is its head."""
    found = [
        ("Beside published results", reference_rows(report)),
        ("Metrics on the test partition", metric_rows(report)),
    ]
    if report["gain"] and report["gain"]["difference"]:
        found.append(("Against the study's default", gain_rows(report)))
    if report["held_out"]:
        found.append(("Calibration", calibration_rows(report)))
    if report["confirm"]:
        found.append(("Finalists of the search, out of fold", confirm_rows(report)))
    return [*found, ("Error rates by votes", vote_rows(report)), ("Each seed, at 0.5", seed_rows(report))]


def headline(report: Mapping[str, Any]) -> str:
    """Return study, trial, number of images and of seeds."""
    n_seeds, n_planned = report["n_seeds"], report["n_seeds_planned"]
    seeds = counted(n_seeds, "seed") if report["complete"] else f"only {n_seeds} of {n_planned} seeds have finished"
    return f"{report['study']}, trial {report['trial']['number']}: {report['n_images']} test images, {seeds}"


def seed_rows(report: Mapping[str, Any]) -> Rows:
    """Return the method report's columns for each seed, mean and standard deviation."""
    chosen = [report["metrics"][name] for _, name in TABLE_COLUMNS]
    return [
        ["", *(title for title, _ in TABLE_COLUMNS)],
        *(
            [f"seed {seed}", *(number(metric["per_seed"][index]) for metric in chosen)]
            for index, seed in enumerate(report["seeds"])
        ),
        ["mean", *(number(metric["mean"]) for metric in chosen)],
        ["std", *(number(metric["std"]) for metric in chosen)],
    ]


def reference_rows(report: Mapping[str, Any]) -> Rows:
    """Return this study beside published results."""
    metrics = report["metrics"]
    auroc = metrics["auroc"]
    rows = [
        ["", "model", "seeds", "AUROC", "F1", "accuracy", "remark"],
        [
            "this study",
            report["model"],
            str(report["n_seeds"]),
            _with_std(auroc["mean"], auroc["std"]),
            number(metrics["f1"]["mean"]),
            number(metrics["accuracy"]["mean"]),
            "" if report["is_mhist"] else "not MHIST's test partition",
        ],
    ]
    for one in report["references"]:
        shown = [_with_std(one["auroc"], one["auroc_std"]), number(one["f1"]), number(one["accuracy"]), one["remark"]]
        rows.append([one["source"], one["model"], str(one["n_seeds"]), *shown])
    return rows


def metric_rows(report: Mapping[str, Any]) -> Rows:
    """Return every metric at 0.5 and, where it depends on one, at the threshold fixed on held-out images."""
    held_out = report["held_out"]
    head = ["metric", "mean", "std", "95% interval"]
    if held_out:
        head += [f"at {held_out['threshold']:.3f}", "95% interval"]
    rows = [head]
    for name, one in report["metrics"].items():
        title = _METRIC_NAMES.get(name, name.replace("_", " "))
        row = [title, number(one["mean"]), number(one["std"]), interval(one["ci95"])]
        if held_out:
            there = held_out["metrics"].get(name)
            row += [number(there["mean"]), interval(there["ci95"])] if there else ["", ""]
        rows.append(row)
    return rows


def calibration_rows(report: Mapping[str, Any]) -> Rows:
    """Return log loss, Brier score and calibration error of raw and of corrected probabilities."""
    rows = [["probabilities", "log loss", "95% interval", "Brier score", "95% interval", "calibration error"]]
    names = {
        "raw": "raw",
        "recalibrated": "recalibrated on held-out images",
        "prior_corrected": "prior-corrected (uses the test share of SSA)",
    }
    for name, one in report["held_out"]["calibration"].items():
        cells = [
            cell for key in ("log_loss", "brier") for cell in (number(one[key]["mean"]), interval(one[key]["ci95"]))
        ]
        rows.append([names[name], *cells, number(one["ece"]["mean"])])
    return rows


def gain_rows(report: Mapping[str, Any]) -> Rows:
    """Return the chosen trial beside the study's default on the test images, and the differences of AUROC and F1."""
    gain, names = report["gain"], ("auroc", "auprc", "f1", "balanced_accuracy")
    rows = [["", "seeds", *(_METRIC_NAMES.get(name, name.replace("_", " ")) for name in names)]]
    for title, n_seeds, metrics in (
        (f"chosen, trial {report['trial']['number']}", report["n_seeds"], report["metrics"]),
        (f"default, trial {gain['default']}", gain["n_seeds"], gain["metrics"]),
    ):
        cells = [_with_std(metrics[name]["mean"], metrics[name]["std"]) for name in names]
        rows.append([title, str(n_seeds), *cells])
    auroc, f1 = (change(gain[name]["estimate"], gain[name]["ci95"]) for name in ("difference", "difference_f1"))
    return [*rows, ["difference, 95% interval", "", auroc, "", f1, ""]]


def confirm_rows(report: Mapping[str, Any]) -> Rows:
    """Return the finalists with what the search and what the folds say of each."""
    head = ["trial", "F1 in the search", "F1 out of fold", "95% interval", "AUROC", "epochs", "chosen in resamples"]
    rows = [head]
    for one in report["confirm"]["finalists"]:
        name = f"{one['trial']}" + (", the default" if one["is_default"] else "")
        shown = [number(one["search_value"]), number(one["f1"]), interval(one["ci95"]), number(one["auroc"])]
        rows.append([name, *shown, str(one["stop_epoch"]), f"{one['selected']:.0%}"])
    return rows


def vote_rows(report: Mapping[str, Any]) -> Rows:
    """Return the error rate for each number of votes beside the pathologists' disagreement."""
    return [
        ["votes for SSA", "images", "error rate", "95% interval", "pathologists against"],
        *(
            [
                f"{one['votes']} of 7",
                str(one["n_images"]),
                number(one["error_rate"]),
                interval(one["ci95"]),
                number(one["human_error_rate"]),
            ]
            for one in report["by_votes"]
        ),
    ]


def search_lines(report: Mapping[str, Any]) -> list[str]:
    """Return what is to be said of the search: its size, importances where there are none, values at an edge."""
    search = report["search"]
    states = ", ".join(f"{count} {state.lower()}" for state, count in search["n_trials"].items())
    lines = [f"Trials: {states}."]
    if search["importance"]["missing"]:
        lines.append(f"Hyperparameter importance: {search['importance']['missing']}.")
    lines += _audit_lines(search["audit"])
    if report["confirm"]:
        lines += [f"{line[0].upper()}{line[1:]}." for line in finalists.sentences(report["confirm"])]
        lines.append(
            "How often a finalist is chosen in resamples of the train images says how firm the choice is, not how "
            "probably it is the best."
        )
    lines += [f"Edge of range: {alarm}." for alarm in search["edges"]]
    return lines


def _audit_lines(audit: Mapping[str, Any]) -> list[str]:
    if audit["missing"]:
        return [f"Audit of the pruner: {audit['missing']}."]
    best = (
        f"the best of them is {audit['lost_f1']:.3f} above the best of all others in validation F1"
        if audit["lost_f1"]
        else "none of them is better than the best of all others"
    )
    correlations = [f"{rho:.2f} after epoch {epoch}" for epoch, rho in audit["rank_correlation"].items() if rho]
    return [
        f"Audit of the pruner: pruning saved about {duration(audit['saved_s'])} on one device. "
        f"{audit['n_would_have_ended']} of {audit['n_audited']} trials that were finished whatever their scores would "
        f"have been pruned; finishing them took {duration(audit['spent_s'])}, and {best}.",
        f"Rank correlation of scores with those at the end: {', '.join(correlations)}.",
    ]


def opening_lines(report: Mapping[str, Any]) -> list[str]:
    """Return how often, when, by whom and why the test partition was opened."""
    openings = report["test_openings"]
    lines = [f"The test partition was opened {counted(len(openings), 'time')}:"]
    for one in openings:
        beside = "" if one["default"] in (None, one["trial"]) else f" and the default, trial {one['default']}"
        what = f"trial {one['trial']}{beside}, {counted(len(one['seeds']), 'seed')}"
        if one["descriptive"]:
            rows = counted(len(one["descriptive"]), "row")
            what = f"descriptive: early-stopped models of {rows}, {counted(len(one['seeds']), 'seed')}"
        lines.append(f"- {one['opened_at']} by {one['by']}, {what}: {one['reason']}")
    return lines


def facts(report: Mapping[str, Any]) -> dict[str, str]:
    """Return what identifies the run: params, epochs, cost, hashes, versions."""
    trial = report["trial"]
    opening = next(one for one in report["test_openings"] if one["id"] == report["opening"])
    found = {
        "Params": ", ".join(f"{name} = {value}" for name, value in trial["params"].items()) or "none searched",
        "Epochs": f"best {trial['best_epoch']}, stopped {trial['stopped_epoch']}, "
        f"configured {trial['configured_epochs']}; retrained for {report['stop_epoch']}",
        **({"Settings": settings(report["settings"])} if report["settings"] else {}),
        "Training of the seeds": _cost(report["training_speed"]),
        "Search": _cost(report["search_cost"]),
        **({"Confirming": _cost(report["confirm_cost"])} if report["confirm"] else {}),
        "Study definition": f"SHA-256 {report['definition_sha256']}",
        "Train partition": f"SHA-256 {report['dataset_fingerprint']}",
        "Test partition": f"SHA-256 {opening['test_fingerprint']}",
        "Versions": ", ".join(f"{name} {release}" for name, release in report["versions"].items()),
        "Predictions": "predictions.csv",
    }
    if report["weight_files"]:
        found["Starting weights"] = "; ".join(f"{name}, SHA-256 {one}" for name, one in report["weight_files"].items())
    return found


def _cost(cost: Mapping[str, Any]) -> str:
    text = f"{counted(cost['n_epochs'], 'epoch')} in {duration(cost['elapsed_s'])}"
    if cost["images_per_s"] is not None:
        text += f", {cost['images_per_s']:.0f} images/s in training"
    if cost["peak_memory_bytes"] is not None:
        text += f", at most {cost['peak_memory_bytes'] / 2**20:.0f} MiB"
    return text


def _with_std(mean: float | None, std: float | None) -> str:
    return number(mean, 4) if std is None else f"{number(mean, 4)} ± {number(std, 4)}"
