"""Shows the events of workers: bars on a terminal, key=value lines otherwise."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from mhist_tune.definition.scores import SCORE_NAMES
from mhist_tune.events import Emit, format_event


@contextlib.contextmanager
def progress() -> Iterator[Emit]:
    """Yield a function that shows an event of a worker on stderr. Steps are shown on a terminal only."""
    if not sys.stderr.isatty():
        yield _write_line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.fields[title]}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[tuple[str, str, int], TaskID] = {}

        def draw(event: str, /, **fields: Any) -> None:
            key = (fields.get("study", ""), fields.get("stage", ""), fields.get("slot", -1))
            if event == "trial":
                title = f"{fields['study']} {fields['stage']} trial {fields['trial']}"
                tasks[key] = bars.add_task("", total=float(fields["epochs"]), title=title, note="")
            elif event == "step" and key in tasks:
                done = fields["epoch"] + fields["n_done"] / max(1, fields["n_images"])
                bars.update(tasks[key], completed=done)
            elif event == "epoch" and key in tasks:
                bars.update(tasks[key], completed=float(fields["epoch"]), note=_epoch_note(fields))
            elif event in ("done", "lost", "error", "gives_way"):
                if key in tasks:
                    bars.remove_task(tasks.pop(key))
                console.print(_end_line(event, fields), highlight=False, markup=False)
            elif event in ("setting", "hardware", "left", "blocked", "trivial", "budget", "crashed"):
                console.print(format_event(event, fields), highlight=False, markup=False)

        yield draw


def _write_line(event: str, /, **fields: Any) -> None:
    if event != "step":
        click.echo(format_event(event, fields), err=True)


def _epoch_note(fields: Mapping[str, Any]) -> str:
    value = fields.get(f"val_{fields['score']}")
    score = f"loss {fields['train_loss']:.3f}" if value is None else f"val {SCORE_NAMES[fields['score']]} {value:.3f}"
    return f"epoch {fields['epoch']}/{fields['epochs']}  {score}  {fields['images_per_s']:.0f} images/s"


def _end_line(event: str, fields: Mapping[str, Any]) -> str:
    head = f"{fields['study']} {fields['stage']} slot {fields['slot']}"
    if event == "done":
        value = fields.get("value")
        score = "" if value is None else f" {value:.3f}"
        return f"{head}: {fields['state']}{score} {fields.get('reason', '')}".rstrip()
    return f"{head}: {'lease lost to another worker' if event == 'lost' else fields.get('error') or fields['reason']}"
