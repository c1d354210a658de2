"""What each network took to make, and how long it takes, as a table beside the numbers."""

from __future__ import annotations

from scripts.evidence.facts import Condition, Measured
from scripts.website.markup import raw_table
from scripts.website.names import subject_name
from scripts.website.numbers import NONE, count, fixed, plain

COLUMNS = {  # metric -> heading; what is zero for all is left out
    "ledger_steps": "Steps", "ledger_iterations": "Iterations", "ledger_images": "Images", "ledger_labelled": "with labels",
    "ledger_validation": "of validation", "ledger_evaluations": "Evaluations", "ledger_rate": "Highest rate", "ledger_seconds": "Seconds",
    "milliseconds_1": "ms, 1 image", "milliseconds_64": "ms, 64 images",
}  # fmt: skip


def table(measured: Measured, condition: Condition) -> str:
    """Empty where nothing of it is recorded."""
    subjects = measured.subjects(condition)
    known = {metric: [measured.sample(condition, subject, metric) for subject in subjects] for metric in COLUMNS}
    shown = [metric for metric, samples in known.items() if any(sample and sample.mean for sample in samples)]
    if not shown:
        return ""
    lines = []
    for place, subject in enumerate(subjects):
        samples = ((metric, known[metric][place]) for metric in shown)
        cells = "".join(f"<td>{_cell(metric, sample.mean) if sample else NONE}</td>" for metric, sample in samples)
        lines.append(f'<tr><th scope="row">{subject_name(subject)}</th>{cells}</tr>')
    told = "What it took to make each network, counted as it was made, and what it takes to run: means over the seeds."
    heads = ["Network", *(COLUMNS[metric] for metric in shown)]
    return f"{told}\n{{ .sp-under }}\n\n{raw_table('sp-numbers', heads, '<tbody>' + ''.join(lines) + '</tbody>')}"


def _cell(metric: str, value: float) -> str:
    if metric == "ledger_rate":
        return plain(value)
    return fixed(value, 1) if metric.startswith("milli") or metric == "ledger_seconds" else count(value)
