"""The state of a study and its best trial as text for a terminal. Imports nothing heavy, as `status`."""

from mhist_tune import words
from mhist_tune.definition.scores import SCORE_NAMES
from mhist_tune.report import stage_costs
from mhist_tune.report.status import STATE_KEYS, BestOfSearch, BestOfTable, BestTrial, Status

_WORDS = {key: state for state, key in STATE_KEYS.items()}


def trivial_text(n_trivial: int, f1: float | None) -> str:
    """Return in one line that trials are trivial, with the F1 of calling every image SSA."""
    known = "" if f1 is None else f" (calling all SSA has an F1 of {f1:.3f})"
    verb = "calls" if n_trivial == 1 else "call"
    return f"{words.counted(n_trivial, 'trial')} {verb} all validation images one class{known}"


def best_text(best: BestTrial) -> str:
    """Return the best trial in one line."""
    if isinstance(best, BestOfTable):
        row = f'"{best.label}" (trial {best.number})'
        return f"{row}, val {SCORE_NAMES[best.score]} {words.number(best.value)}, the mean of {best.n_seeds} seeds"
    if best.confirm is not None:
        from mhist_tune.report import confirmation  # with NumPy

        return "; ".join(confirmation.sentences(best.confirm))
    error = "" if best.standard_error is None else f" ± {best.standard_error:.3f}"
    value = f"val {SCORE_NAMES[best.score]} {words.number(best.value)}"
    text = f"trial {best.number}, {value}{error} at epoch {best.best_epoch}"
    if isinstance(best, BestOfSearch) and best.n_ties:
        text += f"; {best.n_ties} more within this standard error"
    if isinstance(best, BestOfSearch) and best.is_trivial:
        text += "; no trial that is complete has learned more than to call all validation images one class"
    return text


def to_text(status: Status) -> str:
    """Return the state of a study as lines of text."""
    lines = [f"{status.study}  {status.state}"]
    if probed := status.settings.get("probed"):
        lines.append(f"  settings: {words.settings(probed)}")
    if "transfer" in status.settings:
        from mhist_tune.report import transferred  # with NumPy

        lines.append(f"  started from {transferred.taken(transferred.of_settings(status.settings))}")
    if len(status.code_versions) > 1:
        lines.append(f"  Warning: trained by different versions of the code: {', '.join(status.code_versions)}")
    for stage, counts in status.stages.items():
        if counts:
            states = ", ".join(f"{n} {_WORDS.get(state, state)}" for state, n in sorted(counts.items()))
            lines.append(f"  {stage}: {states}")
    trials = ", ".join(f"{n} {state.lower()}" for state, n in status.trials.items() if n)
    if trials:
        lines.append(f"  trials: {trials}")
    if status.n_trivial:
        lines.append(f"  {trivial_text(status.n_trivial, status.trivial_f1)}")
    if top := status.best:
        is_trivial = isinstance(top, BestOfSearch) and top.is_trivial and top.confirm is None
        lines.append(f"  {'leading' if is_trivial else 'best'}: {best_text(top)}")
    if not (status.best and status.best.confirm):  # whose sentences name them too
        lines += [f"  {clause}" for clause in status.dropped_finalists]
    if status.more_trials is not None:
        from mhist_tune.report import more_trials  # with NumPy

        if advice := more_trials.sentence(status.more_trials):
            lines.append(f"  {advice}")
    for worker in status.workers:
        progress = "" if worker.epoch is None else f", epoch {worker.epoch}"
        speed = f", {worker.images_per_s:.0f} images/s" if worker.images_per_s else ""
        memory = f", {worker.memory_bytes / 1e9:.1f} GB" if worker.memory_bytes else ""
        lines.append(
            f"  {worker.worker} on {worker.device or 'a device unknown yet'}: {worker.stage} trial "
            f"{worker.trial_number}{progress}{speed}{memory}, lease {worker.lease_age_s:.0f} s old"
        )
    for slot in status.abandoned:
        trial = "before its trial" if slot.trial_number is None else f"trial {slot.trial_number}"
        progress = f", epoch {slot.epoch}" if slot.epoch else ""
        lines.append(
            f"  abandoned by {slot.worker}: {slot.stage} {trial}{progress}, lease ended "
            f"{words.rough_duration(slot.since_s)} ago; "
            f"the next worker that has watched the lease for {slot.taken_over_after_s:g} s takes it over"
        )
    if status.budget is not None:
        lines.append(f"  budget: {stage_costs.budget_text(status.budget)}")
    if status.cost is not None:
        lines += [f"  {line}".rstrip() for line in stage_costs.to_lines(status.cost)]
    if (left_s := status.time_left_s) is not None:
        lines.append(f"  time left: about {words.rough_duration(left_s)}")
    n_looks = sum(opening.failed is None for opening in status.openings)
    by_all = f", these images {words.counted(n_looks, 'time')} by all studies" if n_looks > status.test_openings else ""
    lines.append(f"  test partition opened {words.counted(status.test_openings, 'time')}{by_all}")
    for opening in status.openings:
        failed = f"; failed before any prediction: {opening.failed}" if opening.failed else ""
        by = opening.study or "a deleted study"
        lines.append(f"    {opening.id}: {opening.opened_at} by {by}: {opening.reason}{failed}")
    return "\n".join(lines)
