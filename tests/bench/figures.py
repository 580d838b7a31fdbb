"""Figures of the benchmarks: JSON lines in target/bench, and a table for the terminal."""

import json
import math

from rig.processes import ROOT

# Cases and metrics that the table shows, in this order, when there are figures of them.
UNITS = {
    "messages_per_second": "1/s", "cpu_us_per_message": "us", "rsa_2048_us": "us",
    "cpu_in_signatures": "1", "accept_p50_ms": "ms", "accept_p99_ms": "ms",
    "half_load_per_second": "1/s", "half_load_accept_p50_ms": "ms", "half_load_accept_p99_ms": "ms",
    "half_load_accept_mean_ms": "ms", "half_load_storage_mean_ms": "ms", "peak_rss_mib": "MiB", "fsyncs_per_message": "1", "jetstream_ops_per_message": "1",
    "messages_per_block": "1", "ratio_to_postfix": "1", "bytes_per_delivery": "B", "recovery_seconds": "s",
    "cpu_ratio": "1", "waiting": "1", "stopped_seconds": "s", "killed_seconds": "s",
}


class Figures:
    """Collects the figures of one benchmark; each is written as soon as it is known."""

    def __init__(self, bench, only_case=None):
        """Replaces the figures of an earlier run: all of them, or those of one case."""
        self.bench = bench
        self.path = ROOT / "target" / "bench" / f"{bench}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        earlier = self.path.read_text().splitlines() if only_case and self.path.exists() else []
        kept = [line for line in earlier if json.loads(line)["case"] != only_case]
        self.path.write_text("".join(f"{line}\n" for line in kept))
        self.values = {}

    def add(self, case, metric, value, unit=None, **more):
        """Adds one figure. `more` is what tells apart figures of one metric, such as the process."""
        unit = unit or UNITS[metric]
        value = None if isinstance(value, float) and math.isnan(value) else round(value, 4)
        figure = {"bench": self.bench, "case": case, "metric": metric, "value": value, "unit": unit, **more}
        with open(self.path, "a") as out:
            out.write(json.dumps(figure) + "\n")
        if not more:
            self.values[case, metric] = value

    def table(self):
        """The figures with a row for each metric and a column for each case."""
        cases = list(dict.fromkeys(case for case, _ in self.values))
        metrics = [m for m in UNITS if any((case, m) in self.values for case in cases)]
        width = max([len(m) + 8 for m in metrics], default=10)
        lines = [" " * width + "".join(f"{case:>22}" for case in cases)]
        for metric in metrics:
            row = f"{metric} [{UNITS[metric]}]".ljust(width)
            for case in cases:
                value = self.values.get((case, metric))
                row += f"{'-' if value is None else format(value, ',.2f'):>22}"
            lines.append(row)
        return "\n".join(lines)
