"""The table that copies.py and load.py write."""

import statistics


def table(title, times, first, digits):
    """One line for each name in `times`, with its pairs of seconds taken and processor seconds; the last column is
    relative to the line called `first`."""
    base = statistics.median(seconds for seconds, _ in times[first])
    lines = [f"\n{title}\n", "| | median | all | processor | to inflight |", "|---|---|---|---|---|"]
    for name, values in times.items():
        seconds = [value for value, _ in values]
        median, used = statistics.median(seconds), statistics.median(used for _, used in values)
        each = ", ".join(f"{value:.{digits}f}" for value in sorted(seconds))
        lines.append(f"| {name} | {median:.{digits}f} s | {each} | {used:.2f} s | {median / base:.2f} |")
    return lines
