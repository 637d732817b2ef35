"""The model card of an exported model (after Mitchell et al., 2019): intended use, metrics and limits.

All numbers are those of the report.
"""

from collections.abc import Mapping
from typing import Any

from mhist_tune.report import about, data_set, one_model, report_tables, report_text
from mhist_tune.report.document import Report
from mhist_tune.words import counted, markdown_table, number


def render(report: Report, model: Mapping[str, Any]) -> str:
    """Return the card.

    Args:
        report: the report of the study.
        model: the description of the model, as in `model.json`.
    """
    seed = report.seeds.index(model["seed"]) if model["seed"] in report.seeds else None
    own = None if seed is None else report.metrics["auroc"].per_seed[seed]
    preprocessing = model["preprocessing"]
    positive, negative = model["positive_class"], model["negative_class"]
    parts = [
        f"# {report.model}, study {report.study}, trial {model['trial']}, seed {model['seed']}",
        report.result,
        f"This folder holds one of these {counted(report.n_seeds, 'model')}: seed {model['seed']}, the first one, "
        f"which is not chosen by its score. Its own test AUROC is {number(own, 4)}.",
        *([together] if (together := one_model.sentence(report.one_model)) else []),
        "## Intended use",
        f"Research on distinguishing {positive} from {negative} in H&E images like those that it was trained on: of "
        "the same stain, scanner, magnification and preparation. It is no medical device. Its performance on images of "
        "another laboratory is not known, and no diagnosis may rest on it.",
        "## Use",
        "```\nmhist-tune predict . IMAGE.png\n```",
        f"gives the probability of {positive} and the class at the threshold {model['threshold']:.4f} "
        f"({model['threshold_source']}). The weights are `model.safetensors` under timm's names. Other programs decode "
        f"an image as RGB, resize it to {preprocessing['image_size']} px ({preprocessing['resize']}), divide by 255, "
        f"subtract the mean {_triple(preprocessing['mean'])} and divide by {_triple(preprocessing['std'])}; the model "
        "gives one logit, whose sigmoid is the probability.",
        "## Data",
        _data(report),
        f"## {about.TITLE}",
        _table(about.rows(report.about)),
        "## Metrics",
        f"On the test partition, over {counted(report.n_seeds, 'seed')}:",
        _table(report_tables.metric_rows(report)),
        *([_table(report_tables.calibration_rows(report.held_out))] if report.held_out else []),
        _table(report_tables.vote_rows(report)),
        "## Limits",
        "\n".join(f"- {caveat}" for caveat in report.caveats),
        "## How it was trained",
        report.methods,
        "## Identity",
        "\n".join(
            f"- {name}: {fact}"
            for name, fact in {
                "Weights": f"SHA-256 {model['weights_sha256']}",
                **{name: fact for name, fact in report_text.facts(report).items() if name != "Predictions"},
            }.items()
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _data(report: Report) -> str:
    whole = "MHIST's" if report.is_mhist else "a data set in MHIST's layout, which is not MHIST"
    about = [
        f"{text[0].upper()}{text[1:]}."
        for text in (report.data.description, report.data.source and f"source: {report.data.source}")
        if text
    ]
    return " ".join([*about, _partitions(report, whole)])


def _partitions(report: Report, whole: str) -> str:
    return (
        f"Trained on the whole train partition of {whole} ({counted(report.n_train + report.n_val, 'image')}); "
        f"tested on {counted(report.n_images, 'image')}, {report.share_ssa:.1%} of them SSA. Labels are "
        f"{data_set.labels(report.data)}. {data_set.groups(report.data)}"
    )


def _table(rows: list[list[str]]) -> str:
    return "\n".join(markdown_table(rows))


def _triple(values: list[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
