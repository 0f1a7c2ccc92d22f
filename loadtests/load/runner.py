"""Runs scenarios and judges them.

    python -m loadtests.load.runner [steady …]     without names: all of them

Each scenario gets two regions of its own with real servers, its load, its faults at their
moments, and a verdict by `thresholds.yaml`. Exit code 0: every threshold was kept. 1: a threshold
was missed, or a scenario could not run; the reason, the size of the miss, and where to look are
printed. 2: the command line or the thresholds are wrong.
"""

import argparse
import signal
import sys
from pathlib import Path

from rich.console import Console

from cachesvc.app.embedded.server_process import ServerStartError
from loadtests.load.judge import judge
from loadtests.load.judge_driver import doubt_of
from loadtests.load.progress import Progress
from loadtests.load.report import Outcome, keep, print_outcome, print_summary, write_index
from loadtests.load.runner_sampling import Sampling
from loadtests.load.runner_scenario import LoadError, Run
from loadtests.load.runner_stage import Stage
from loadtests.load.thresholds import PATH, Limits, ThresholdError, read_thresholds
from loadtests.scenarios import SCENARIOS
from loadtests.scenarios.scenario import Scenario

SHORTEST, LONGEST = 0.2, 20.0
"""The allowed values of `--duration`.

A shorter scenario shows nothing; a higher value is probably meant as seconds.
"""
SUMMARY_WIDTH = 160
"""The width of the summary.

A narrower terminal wraps the lines; rich would cut the figures.
"""


def main() -> int:
    """Runs the chosen scenarios; the exit code."""
    options = _arguments()
    out = Console(width=max(Console().width, SUMMARY_WIDTH))
    try:
        thresholds = read_thresholds(
            options.thresholds, {name: set(each.stretches()) for name, each in SCENARIOS.items()}
        )
    except ThresholdError as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    # SIGINT too: a shell starts background jobs with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    outcomes: list[Outcome] = []
    try:
        for name in options.scenario or list(SCENARIOS):
            scenario = SCENARIOS[name].scaled(options.duration)
            outcomes.append(run(scenario, thresholds[name], options.out / name))
            print_outcome(out, outcomes[-1])
    except KeyboardInterrupt:
        print("load: interrupted", file=sys.stderr)
        return 130
    finally:
        if outcomes:
            print_summary(out, outcomes)
            out.print(f"Plots: {write_index(options.out, SCENARIOS)}", soft_wrap=True)
    return 0 if all(outcome.ok for outcome in outcomes) else 1


def run(scenario: Scenario, limits: Limits, folder: Path) -> Outcome:
    """Runs one scenario, from empty servers to its outcome, which is also written to `folder`."""
    try:
        stage = Stage(scenario, folder)
    except ServerStartError as error:
        return Outcome(scenario, folder, {}, [], failure=str(error))
    played = Run(scenario, stage)
    failure = _play(played)
    figures = played.figures()
    outcome = Outcome(scenario, folder, figures, judge(limits, figures), failure, doubt_of(scenario, figures))
    keep(outcome, played.story())
    return outcome


def _play(run: Run) -> str:
    """Runs the scenario; the reason if it could not run to its end, else empty."""
    stage = run.stage
    try:
        with (
            stage,
            Sampling(stage.origin_url, stage.fleet, stage.folder / "servers.jsonl"),
            Progress(run.story) as progress,
        ):
            run.play(progress)
    except (LoadError, ServerStartError) as error:
        return str(error)
    return ""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.load.runner", description="Load scenarios, judged."
    )
    add = parser.add_argument
    add("scenario", nargs="*", type=_name, help=f"of {', '.join(SCENARIOS)}; none: all of them")
    add(
        "--duration",
        type=_factor,
        default=1.0,
        help="times as long as they are, such as 0.3; a short one shows less (%(default)s)",
    )
    add("--out", type=Path, default=Path(".run/load"), help="takes a folder for each scenario (%(default)s)")
    add("--thresholds", type=Path, default=PATH, help="the document of limits (%(default)s)")
    return parser.parse_args()


def _name(text: str) -> str:
    if text not in SCENARIOS:
        raise argparse.ArgumentTypeError(f"there is no {text!r}; there are {', '.join(SCENARIOS)}")
    return text


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not SHORTEST <= factor <= LONGEST:
        raise argparse.ArgumentTypeError(f"{factor:g} times as long: {SHORTEST:g} to {LONGEST:g}")
    return factor


if __name__ == "__main__":
    sys.exit(main())
