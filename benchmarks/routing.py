"""What routing is worth: the figures in docs/benchmarks.md, section Routing.

    python benchmarks/routing.py --data DIR [--vectors FOLDER] --json
    python benchmarks/routing.py --outcomes FILE.csv --prompt COL --weak COL --strong COL [--group COL] --json
    python benchmarks/routing.py --cascade FILE.csv --cheap A,B --strong C [--costs A=0.06,B=0.1,C=1] --json

DIR holds ``routellm/`` and ``zeroeval-gsm/``; a set that is not there is left out with one line. Files are .csv or
.csv.gz; outcomes are 0, 1, true, false or numbers between 0 and 1. A cascade has the columns MODEL:answer and
MODEL:correct, and MODEL:cost where costs are known by row.

Prints tables, and as the last line one JSON object:

- --data: {"mmlu": R, "gsm8k": R, "gsm8k_answer": R, "agreement": C, "decision_ms", "requests_per_s", ...}
- --outcomes: one R = {"apgr": {"mean", "std"}, "cpt50", "cpt80", "n", "baselines", "guarantee", ...}; CPT in percent.
  Baselines are APGR; "group" is null without --group. Violations are a share of splits, escalated of requests.
- --cascade: one C = {"accuracy", "weak", "strong", "escalated", "cost_ratio", ...}, each {"value", "low", "high"} with
  a 95 % interval; "cost_ratio" is null where no costs are known.

Fitted, calibrated and chosen on the labels alone; evaluated on all other rows. The first --vectors run embeds every
prompt (MMLU: some 4 minutes on two cores) and keeps the vectors there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from _machine import machine
from routes.cascade import CASCADES, cascade, pool, read_cascade, read_zeroeval
from routes.pairs import SEED, route
from routes.speed import measure
from routes.tables import Table, read_gsm8k, read_mmlu, read_table

from negawatt.errors import ConfigError, EmbedderError, InputError

SHOWN = (
    "weak", "strong", "accuracy", "escalated", "cost_ratio", "over_strong", "recovered", "accepted_precision",
)  # fmt: skip
SPLITS = 30
MMLU_LABELS, GSM8K_LABELS = 1500, 300
PUBLISHED = {  # RouteLLM, the best of its routers in each column, with about as many labels
    "MMLU": "published: APGR 0.603, CPT50 35.40, CPT80 70.31",
    "GSM8K, prompt only": "published: APGR 0.622, CPT50 33.64, CPT80 63.26",
    "GSM8K, weak answer read": "published, prompt only: APGR 0.622, CPT50 33.64, CPT80 63.26",
}


def from_folder(folder: Path, vectors: Path | None, splits: int) -> dict:
    found: dict = {}
    timed: tuple[Table, int] | None = None
    routellm, zeroeval = folder / "routellm", folder / "zeroeval-gsm"
    if there(routellm / "mmlu_outcomes.csv.gz"):
        mmlu = read_mmlu(routellm, vectors)
        found["mmlu"] = routed(mmlu, MMLU_LABELS, splits)
        timed = mmlu, MMLU_LABELS
    if there(routellm / "gsm8k_gsm8k_responses.csv.gz"):
        by_prompt, by_answer = read_gsm8k(routellm, vectors)
        found["gsm8k"] = routed(by_prompt, GSM8K_LABELS, splits)
        found["gsm8k_answer"] = routed(by_answer, GSM8K_LABELS, splits)
        timed = timed or (by_prompt, GSM8K_LABELS)
    if there(zeroeval / "gsm_outcomes.csv.gz"):
        models = read_zeroeval(zeroeval)
        all_of_them = [(pair, cascade([models[m] for m in pair[0]], models[pair[1]])) for pair in CASCADES]
        for (cheap, strong), figures in all_of_them:
            show_cascade(f"{' + '.join(cheap)} -> {strong}", figures)
        found["agreement"] = all_of_them[0][1]
        found["zero_router"] = pool(models)
        print(f"\nMixing single models at random, USD per 1,000 questions and accuracy: {found['zero_router']}")
        found["agreement_others"] = [
            {"cheap": cheap, "strong_model": strong, **figures} for (cheap, strong), figures in all_of_them[1:]
        ]
    if timed is not None:
        speed = measure(*timed)
        print(f"\nA decision on one core: {speed}\nRouteLLM publishes 2.9 (CPU) and 155 (GPU) requests per second.")
        found |= speed
    return found


def routed(table: Table, labels: int, splits: int) -> dict:
    figures = route(table, labels, splits)
    show_route(table.name, figures)
    return figures


def show_route(name: str, found: dict) -> None:
    print(f"\n{name}: n {found['n']}, {found['labels']} labels, {found['evaluated']} evaluated, ", end="")
    print(f"{found['splits']} splits, seed {SEED}, 11 points; ", end="")
    print(f"always small {found['weak']:.2%}, always large {found['strong']:.2%}")
    if found["weak_cost"] is not None:
        print("  the score reads the small model's answer; its call is charged always: ", end="")
        print(f"{found['weak_cost']:.2%} of a large one")
    print(f"  {'':12}{'APGR':>8}{'CPT50 %':>9}{'CPT80 %':>9}")
    low, high = found["apgr_interval"]
    row = (found["apgr"]["mean"], found["cpt50"], found["cpt80"])
    print(f"  {'router':12}{row[0]:8.3f}{cell(row[1])}{cell(row[2])}  95 % of splits {low:.3f} to {high:.3f}", end="")
    print(f", continuous curve {found['apgr_continuous']:.3f}")
    for baseline, value in found["baselines"].items():
        cpt = found["baselines_cpt"].get(baseline, {"cpt50": None, "cpt80": None})
        shown = "       –" if value is None else f"{value:8.3f}"
        print(f"  {baseline:12}{shown}{cell(cpt['cpt50'])}{cell(cpt['cpt80'])}")
    if name in PUBLISHED:
        print(f"  {PUBLISHED[name]}")
    print(f"  beats the shuffled control (half sent up) in {found['beats_shuffled']:.0%} of splits; ", end="")
    print(f"P(small is right) is off by {found['calibration_error']:.3f} on the mean of tenths")
    print(f"  of the small answers that it is surest of, one in five, {found['surest_fifth_wrong']:.1%} are wrong")
    show_guarantees(found)


def show_guarantees(found: dict) -> None:
    show_guarantee("guarantee", found["guarantee"])
    show_guarantee(f"shifted ({found['guarantee_shifted']['shift']})", found["guarantee_shifted"])


def show_guarantee(name: str, found: dict) -> None:
    for delta, row in found.items():
        if delta == "shift":
            continue
        low, high = row["violations_interval"]
        error = "none accepted" if row["error"] is None else f"error {row['error']:.3f}"
        print(f"  {name}, delta {delta}: violated in {row['violations']:.1%} of {row['splits']} splits ", end="")
        print(f"[{low:.1%}, {high:.1%}], escalated {row['escalated']:.1%}, abstained {row['abstained']:.1%}, {error}")


def show_cascade(name: str, found: dict) -> None:
    print(f"\n{name}: n {found['n']}, 95 % intervals by bootstrap over questions, seed {SEED}")
    for figure in SHOWN:
        value = found[figure]
        if value is None:
            print(f"  {figure:20} unknown")
        else:
            low, high = (f"{value[end]:.4f}" if value[end] is not None else "unbounded" for end in ("low", "high"))
            print(f"  {figure:20} {value['value']:.4f} [{low}, {high}]")
    for figure in ("mixed_at_equal_cost", "shuffled", "oracle", "accuracy_exact", "escalated_exact"):
        print(f"  {figure:20} {'unknown' if found[figure] is None else found[figure]}")
    show_guarantees(found)


def cell(value: float | None) -> str:
    return "        –" if value is None else f"{value:9.2f}"


def there(path: Path) -> bool:
    if path.exists():
        return True
    print(f"{path} is not there: left out", file=sys.stderr)
    return False


def costs_of(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    try:
        return {name: float(cost) for name, _, cost in (part.rpartition("=") for part in text.split(","))}
    except ValueError as error:
        raise InputError(f"--costs: expected MODEL=NUMBER,..., not {text!r}") from error


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the public data sets")
    parser.add_argument("--outcomes", type=Path, help="CSV of prompts and of the outcomes of two models")
    parser.add_argument("--prompt", help="its column of prompts")
    parser.add_argument("--weak", help="its column of the small model's outcomes")
    parser.add_argument("--strong", help="its column of the large model's outcomes; with --cascade, the strong model")
    parser.add_argument("--group", help="a column that the router does not see, for the privileged baseline")
    parser.add_argument("--labels", type=int, help="rows to fit on (default 1,500, or a third of the rows)")
    parser.add_argument("--splits", type=int, default=SPLITS)
    parser.add_argument("--cascade", type=Path, help="CSV with MODEL:answer and MODEL:correct")
    parser.add_argument("--cheap", help="models asked first, separated by commas; the first one's answer is taken")
    parser.add_argument("--costs", help="what a call costs, MODEL=NUMBER separated by commas, in any one unit")
    parser.add_argument("--vectors", type=Path, help="folder in which vectors are kept between runs")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: the last line is JSON anyway")
    return parser


def run(given: argparse.Namespace, parser: argparse.ArgumentParser) -> dict:
    if given.splits < 1:
        parser.error("--splits: at least 1")
    if given.outcomes is not None:
        if None in (given.prompt, given.weak, given.strong):
            parser.error("--outcomes needs --prompt, --weak and --strong")
        table = read_table(given.outcomes, given.prompt, (given.weak, given.strong), given.group, given.vectors)
        n = len(table.texts)
        labels = given.labels if given.labels is not None else min(MMLU_LABELS, n // 3)
        return routed(table, labels, given.splits)
    if given.cascade is not None:
        if None in (given.cheap, given.strong):
            parser.error("--cascade needs --cheap and --strong")
        cheap = [name.strip() for name in given.cheap.split(",") if name.strip()]
        if len(cheap) < 2:
            parser.error("--cheap: agreement needs two models at least")
        models = read_cascade(given.cascade, [*cheap, given.strong], costs_of(given.costs))
        figures = cascade(models[:-1], models[-1])
        show_cascade(f"{' + '.join(cheap)} -> {given.strong}", figures)
        return figures
    if given.data is None:
        parser.error("give --data, --outcomes or --cascade")
    return from_folder(given.data, given.vectors, given.splits)


def main() -> None:
    parser = arguments()
    given = parser.parse_args()
    began = time.strftime("%Y-%m-%d")
    print(f"benchmarks/routing.py, {began}, {', '.join(f'{key} {value}' for key, value in machine().items())}")
    try:
        found = run(given, parser)
    except (InputError, ConfigError, EmbedderError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    print(json.dumps({**found, "date": began}))


if __name__ == "__main__":
    main()
