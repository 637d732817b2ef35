"""The benchmarks run. Their numbers are not tested."""

import importlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.speed import against_recipe, equivalence, memory
from mhist_tune.data.synthesize import synthesize
from mhist_tune.definition import study_file

BENCH = Path(__file__).parents[2] / "bench"


Bench = Callable[..., tuple[int, str, str]]
Document = Callable[..., dict[str, Any]]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Bench]:
    """A function that runs one benchmark in this process, which has loaded torch: exit code, stdout, stderr."""
    n_threads = torch.get_num_threads()

    def call(name: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        capfd.readouterr()
        try:
            importlib.import_module(f"bench.{name}").main()
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 0
        return code, *capfd.readouterr()

    yield call
    torch.set_num_threads(n_threads)


@pytest.fixture
def document(bench: Bench) -> Document:
    """A function that returns what a benchmark prints with --json."""

    def call(name: str, *arguments: str) -> dict[str, Any]:
        code, out, err = bench(name, *arguments, "--json")
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        assert set(found) == {"machine", "results"}
        return found

    return call


def test_throughput_prints_one_document(document: Document) -> None:
    """The document has the machine and one result with rates, their ratio and the goal; progress is not in it."""
    found = document("speed.throughput", "--model", "test_vit", "--n-images", "64", "--n-rounds", "1")
    assert found["machine"]["n_threads"] >= 1
    (row,) = found["results"]
    assert (row["model"], row["n_images"], row["goal"]) == ("test_vit", 64, 0.9)
    assert row["precision"] in ("fp32", "bf16")
    assert row["ratio"] == pytest.approx(row["fit_images_per_s"] / row["bare_images_per_s"])


def test_a_cpu_can_stand_in_for_a_gpu(document: Document) -> None:
    """Each number format has its rates and its share of the bare step, each number of workers its trials per hour."""
    short = ("--n-images", "32", "--n-rounds", "1", "--n-epochs", "1", "--per-device", "1")
    *speeds, search = document("speed.gpu", "--device", "cpu", "--model", "test_vit", *short)["results"]
    assert [row["setting"].split()[0] for row in speeds] == ["fp32", "bf16"]
    for row in speeds:
        assert row["ratio"] == pytest.approx(row["fit_images_per_s"] / row["bare_images_per_s"])
        assert row["peak_memory_gb"] > 0
    assert (search["setting"], search["ratio"]) == ("1 worker", 1)
    assert search["trials_per_hour"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured(bench: Bench) -> None:
    """One line says so, with exit code 2."""
    code, out, err = bench("speed.gpu", "--json")
    assert (code, out) == (2, "")
    assert err.startswith("error: this machine has no CUDA device; hint: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [("--n-images", "33"), ("--weights", "a.safetensors")])
def test_wrong_arguments_measure_nothing(bench: Bench, arguments: tuple[str, ...]) -> None:
    """A wrong argument ends with a usage error before any work."""
    code, _, err = bench("speed.throughput", *arguments)
    assert code == 2
    assert "measuring" not in err


@pytest.mark.slow
def test_storage_prints_one_document(document: Document) -> None:
    """In its quick form, both databases are measured: p50 and p99 with few and more trials, and growth between them."""
    rows = document("service.storage", "--quick")["results"]
    names = [row["model"] for row in rows]
    once = {f"{database} {name}" for database in ("sqlite", "postgresql") for name in ("p50", "p99", "growth")}
    assert set(names) == once
    assert all(names.count(name) == (2 if name.endswith("growth") else 4) for name in once)
    for row in rows:
        assert row["ratio"] > 0
        if not row["model"].endswith("growth"):
            assert row["ratio"] == pytest.approx(row["ledger_ms"] / 5000)


def test_freezing_is_measured_setting_by_setting(document: Document) -> None:
    """Every value of freeze has its rate and its ratio, and nothing frozen has the ratio 1."""
    options = ("--model", "test_vit", "--image-size", "32", "--n-rounds", "1", "--n-steps", "1")
    rows = document("speed.freeze", *options)["results"]
    assert [row["freeze"] for row in rows] == ["none", "stem", "first3", "all_but_head"]
    assert rows[0]["ratio"] == 1
    assert all(row["images_per_s"] > 0 for row in rows)


def test_waits_are_measured_against_their_limits(document: Document) -> None:
    """Help and status have a row each, whose ratio is that to the limit."""
    rows = document("speed.startup", "--wait", "help", "--wait", "status", "--n-trials", "20", "--n-rounds", "1")[
        "results"
    ]
    assert [(row["model"], row["limit_s"]) for row in rows] == [("help", 0.1), ("status", 0.4)]
    assert all(row["ratio"] == pytest.approx(row["seconds"] / row["limit_s"]) for row in rows)


@pytest.mark.slow
def test_a_first_step_is_waited_for(document: Document) -> None:
    """A worker that is started reaches its first step, and is stopped then."""
    (row,) = document("speed.startup", "--wait", "first-step", "--n-trials", "1", "--n-rounds", "1")["results"]
    assert row["seconds"] > 1


def test_a_trial_is_more_than_its_epochs(document: Document) -> None:
    """The time of a trial is that of its epochs, of its checkpoints, and the share that is measured."""
    options = ("--model", "test_vit", "--n-images", "24", "--n-trials", "1", "--n-epochs", "1", "--precision", "fp32")
    (row,) = document("speed.trial_overhead", *options)["results"]
    assert (row["model"], row["n_trials"], row["goal"]) == ("test_vit", 1, 0.02)
    assert row["epochs_s"] > 0
    assert row["saving_s"] > 0
    assert row["ratio"] == pytest.approx(1 - (row["epochs_s"] + row["saving_s"]) / row["trial_s"])
    assert 0 < row["ratio"] < 1


def test_the_recipe_and_we_take_turns(document: Document) -> None:
    """One turn each on the same images: seconds of an epoch, and how many times faster we are."""
    options = ("--model", "test_vit", "--n-images", "24", "--n-epochs", "1", "--n-rounds", "1", "--n-pilot", "0")
    (row,) = document("speed.against_recipe", *options)["results"]
    assert (row["model"], row["unit"], row["n_rounds"]) == ("test_vit", "s", 1)
    assert row["ratio"] == pytest.approx(row["recipe"] / row["ours"])
    assert row["at_most"] > 0


@pytest.mark.slow
def test_trials_are_compared_too(document: Document) -> None:
    """Whole trials by real workers have a row of their own."""
    options = ("--model", "resnet18", "--n-images", "40", "--n-epochs", "1", "--n-rounds", "1", "--n-pilot", "0")
    rows = {row["model"]: row for row in document("speed.against_recipe", *options)["results"]}
    assert list(rows) == ["resnet18", "trials, resnet18"]
    assert rows["trials, resnet18"]["ratio"] > 0


def test_scores_are_compared_with_the_recipes(generated: Path, tmp_path: Path) -> None:
    """Both ways are trained by the same seeds; where any difference is within the margin, the fewest pairs do."""
    setting = replace(against_recipe.EQUIVALENCE, image_size=32, n_epochs=1, goal=10.0)
    row = against_recipe.equivalence(setting, against_recipe.BothWays(setting, generated, tmp_path), 2)
    assert (row["model"], row["n_seeds"], row["n_epochs"]) == ("AUROC, test_vit", 4, 1)
    assert row["difference"] == pytest.approx(row["ours"] - row["recipe"])


def test_pilot_pairs_fix_how_many_follow_and_are_not_used_again() -> None:
    """The spread of the pilot says how many pairs are needed; the interval is of those that follow."""
    # s = 0.00816 sqrt(3 / 1.005) = 0.01411; (s 2 t / 0.01)^2 is 23.46 with t = 1.717 (23 pairs), 23.38 with 1.714 (24)
    pilots = ([0.0, 0.01, 0.01, 0.02], [0.002, 0.002, 0.003])
    assert [equivalence.n_pairs(pilot, 0.01) for pilot in pilots] == [24, 4]

    calls = list[range]()

    def train(seeds: range) -> list[tuple[float, float]]:
        calls.append(seeds)
        return [(0.7, 0.7 + difference) for difference in ([0.5, 0.5] if seeds.start == 0 else [0.0, 0.0, 0.0, 0.008])]

    row = equivalence.compare(train, ("recipe", "ours"), n_pilot=2, margin=0.01)
    assert calls == [range(2), range(2, 6)]
    # the mean is 0.002, its standard error 0.004 / 2, and t at 95% with 3 degrees of freedom 2.353
    assert [row[name] for name in ("difference", "low", "high", "ratio")] == pytest.approx(
        [0.002, -0.002706, 0.006706, 0.006706], abs=1e-6
    )
    assert (row["recipe"], row["ours"]) == pytest.approx((0.7, 0.702))


def test_number_formats_are_compared_seed_by_seed(document: Document, generated: Path) -> None:
    """fp32 against itself differs by nothing in any pair."""
    options = (
        "--model",
        "test_vit",
        "--image-size",
        "32",
        "--n-epochs",
        "1",
        "--n-pilot",
        "2",
        "--data",
        str(generated),
    )
    (row,) = document("speed.precision", *options, "--precision", "fp32")["results"]
    assert (row["difference"], row["ratio"], row["pilot_deviation"], row["n_seeds"]) == (0, 0, 0, 4)
    assert 0 < row["fp32"] <= 1


def test_a_processes_peak_is_seen(tmp_path: Path) -> None:
    """What a process allocates shows in its peak; images are counted by the second of a core."""
    code = "import time; kept = b'x' * {}; time.sleep(1)"
    peaks = [memory.peak_bytes([sys.executable, "-c", code.format(n)], tmp_path) for n in (1, 200_000_000)]
    assert peaks[1] - peaks[0] == pytest.approx(200e6, rel=0.05)

    synthesize(tmp_path / "images", n_images=24, image_size=16, seed=0)
    n_images, per_s = memory.cache_rate(tmp_path / "images", 16, tmp_path / "cache")
    assert n_images == 17
    assert per_s > 0


@pytest.mark.slow
def test_memory_is_measured_of_a_worker(document: Document) -> None:
    """A worker's peak and the rate of its cache have a row each."""
    rows = document("speed.memory", "--model", "fcnn", "--n-images", "96", "--image-size", "32")["results"]
    assert [row["model"] for row in rows] == ["peak, fcnn", "cache"]
    assert all(row["ratio"] == pytest.approx(row["value"] / row["limit"]) for row in rows)


@pytest.mark.parametrize("path", sorted((BENCH / "studies").glob("*.toml")), ids=lambda path: path.stem)
def test_a_measured_study_is_what_its_file_is_called(path: Path) -> None:
    """Each can be created, under its file's name; a table has three seeds a row, and some numbers to stand beside."""
    study = study_file.load(path)
    assert study.name == path.stem
    assert f"mhist-tune create-study bench/studies/{path.name}" in study.text
    if study.rows:
        assert study.n_trials == 3 * len(study.rows)
        assert any(row.reported for row in study.rows)


@pytest.fixture
def made_up_curves(tmp_path: Path) -> Path:
    """A recording of twelve configurations that learn the faster the better they end; the last one diverges."""
    head = {
        "space": {
            "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
            "sampling": {"choices": ["none", "smote"]},
        },
        "fixed": {"epochs": 9},
    }
    lines = [head]
    for configuration, seed in itertools.product(range(12), (1, 2)):
        n_epochs = 2 if configuration == 11 else 9
        params = {"learning_rate": 1e-4 * 1.7**configuration, "sampling": ("none", "smote")[configuration % 2]}
        f1 = [0.05 * configuration * (1 - 0.5**epoch) + 0.01 * seed for epoch in range(1, n_epochs + 1)]
        curve = {"val_f1": f1, "elapsed_s": [1.0] * n_epochs}
        lines.append({"configuration": configuration, "seed": seed, "params": params, **curve})
    path = tmp_path / "made-up.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
