"""Results as Markdown tables, as the list of bars, and as an SVG chart drawn here. Pure: values in, text out.

A cell is a list of the rounds' results (dictionaries), or None where a target could not do the case.
"""

import statistics

DASH = "–"


def middle(cell, key):
    """Median over the rounds, or None."""
    values = [one[key] for one in cell or [] if one and one.get(key) is not None]
    return statistics.median(values) if values else None


def spread(cell, key, digits=1):
    """Median and, with more than one round, the lowest and highest."""
    values = [one[key] for one in cell or [] if one and one.get(key) is not None]
    if not values:
        return DASH
    text = f"{statistics.median(values):,.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def table(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def load_table(results, section):
    """Throughput, latency and cost of each case and target of a section."""
    rows = []
    for case in dict.fromkeys(key[1] for key in results if key[0] == section):
        for (name, of, label), cell in results.items():
            if name == section and of == case:
                rows.append([case, label, spread(cell, "tps", 0), spread(cell, "mean", 2), spread(cell, "p99", 2), spread(cell, "cost")])
    return table(["case", "through", "transactions/s", "mean ms", "p99 ms", "proxy's CPU µs/transaction"], rows)


def bulk_table(results, section):
    rows = [[case, label, spread(cell, "cost", 2), spread(cell, "rate", 0), spread(cell, "grown", 0)]
            for (name, case, label), cell in results.items() if name == section]
    return table(["what", "through", "proxy's CPU seconds per 10⁹ bytes", "10⁶ bytes/s", "memory grew by at most, kB"], rows)


def memory_table(results, section):
    rows = [[case, label, spread([{"n": one["before"] / 1e6} for one in cell or []], "n"),
             spread([{"n": one["after"] / 1e6} for one in cell or []], "n"),
             spread([{"n": one["each"] / 1e3} for one in cell or [] if "each" in one], "n", 2),
             spread(cell, "logins", 0)]
            for (name, case, label), cell in results.items() if name == section]
    return table(["case", "proxy", "resident before, MB", "with them, MB", "kB each", "logins/s, one after the other"], rows)


def storm_table(results, section):
    keys = ("served", "failed", "median", "p99", "last", "moved", "burst")
    rows = [[case, label, *(spread(cell, key, 0) for key in keys)] for (name, case, label), cell in results.items() if name == section]
    return table(["clients at once", "through", "served", "failed", "median ms", "p99 ms", "last ms", "places out of order, p99",
                  "servers opened within 10 ms, most"], rows)


TABLES = {"bulk": bulk_table, "memory": memory_table, "storm": storm_table}


class Bars:
    """The numbers to hold, as far as this run has measured them."""

    def __init__(self, results):
        self.results, self.rows = results, []

    def value(self, section, case, label, key="cost"):
        return middle(self.results.get((section, case, label)), key)

    def label(self, section, case, begins):
        """The target of a case whose label begins so."""
        return next((label for name, of, label in self.results if (name, of) == (section, case) and label.startswith(begins)), None)

    def line(self, what, figure, bar, met):
        self.rows.append([what, figure, bar, "yes" if met else "**no**"])

    def ratio(self, what, section, case, other, bar, key="cost", at_least=False):
        ours = self.value(section, case, "pgherd", key)
        theirs = self.value(section, case, self.label(section, case, other), key)
        if ours and theirs:
            ratio = ours / theirs
            met = ratio >= bar if at_least else ratio <= bar
            self.line(what, f"{ratio:.2f}", f"{'≥' if at_least else '≤'} {bar} × {other}", met)

    def text(self):
        for clients, bar in ((16, 1.0), (64, 0.9), (500, 0.9)):
            self.ratio(f"cost, simple, {clients} clients", "simple", f"{clients} clients", "PgBouncer", bar)
        for clients, bar in ((16, 1.0), (64, 0.9)):
            what = f"cost, simple, {clients} clients, one data thread each"
            self.ratio(what, "scale", f"1 data thread, {clients} clients", "PgBouncer", bar)
        for clients in (16, 64):
            case = f"{clients} clients"
            # Debian's PgBouncer prepares in session mode only: another thing, so only its own label counts.
            other = self.label("prepared", case, "PgBouncer")
            note = " (session mode)" if other and "session" in other else ""
            self.ratio(f"cost, prepared, {clients} clients{note}", "prepared", case, "PgBouncer", 1.0)
        self.ratio("one client on one CPU, throughput", "pinned", "1 client", "PgBouncer", 1.0, "tps", True)
        for section, what in (("reconnect", "trust"), ("reconnect-scram", "SCRAM")):
            self.ratio(f"cost of a reconnect, {what}", section, "16 clients", "PgBouncer", 1.0)
        base = self.value("simple", "64 clients", "pgherd", "tps")
        for clients in (500, 5000):
            tps, mean, p99 = (self.value("simple", f"{clients} clients", "pgherd", key) for key in ("tps", "mean", "p99"))
            if tps and base:
                self.line(f"throughput with {clients:,} clients beside 64", f"{tps / base:.2f}", "≥ 0.9", tps >= 0.9 * base)
            if mean and p99:
                self.line(f"p99 with {clients:,} clients beside the mean", f"{p99 / mean:.2f}", "≤ 3", p99 <= 3 * mean)
        for kind in ("rows", "value", "copy out", "copy in"):
            cost = self.value("bulk", kind, "pgherd")
            if cost is not None:
                self.line(f"large results: {kind}, CPU seconds per GB", f"{cost:.2f}", "≤ 0.64", cost <= 0.64)
        one, three = self.value("scale", "1 server", "pgherd", "tps"), self.value("scale", "3 servers", "pgherd", "tps")
        if one and three:
            self.line("throughput with two standbys beside none", f"{three / one:.2f}", "> 1, unless the machine is full", three > one)
        for case, bar in (("10,000 idle clients", 2.5), ("2,000 idle clients, TLS", 12.0)):
            each = self.value("memory", case, "pgherd", "each")
            if each is not None:
                self.line(f"memory: {case}, kB each", f"{each / 1e3:.2f}", f"≤ {bar}", each <= bar * 1e3)
        for clients in (16, 64, 500):
            case = f"{clients} clients"
            self.ratio(f"cost, simple, {clients} clients", "simple", case, "pgpool-II", 0.25)
            self.ratio(f"throughput, simple, {clients} clients", "simple", case, "pgpool-II", 2.0, "tps", True)
        return table(["what", "figure", "bar", "met"], self.rows) if self.rows else "Nothing of what has a bar was measured."


# The chart.

COLOURS = {"direct": "#9aa0a6", "PgBouncer": "#4c78a8", "pgpool-II": "#e0a030", "pgherd": "#2f9e6e"}


def colour(label):
    return next((value for name, value in COLOURS.items() if label.startswith(name)), "#777777")


def panel(results, section, key, title, left, cases, labels):
    """Bars from the left, grouped by case. Returns SVG and its height."""
    width, row, gap, at = 300, 17, 14, 58
    known = {(case, label): middle(results.get((section, case, label)), key) for case in cases for label in labels}
    most = max((value for value in known.values() if value), default=1)
    parts = [f'<text x="{left}" y="40" class="title">{title}</text>']
    for case in cases:
        parts.append(f'<text x="{left}" y="{at + 8}" class="case">{case}</text>')
        at += 14
        for label in labels:
            value = known[case, label]
            if value is None:
                continue
            length = max(1, value / most * (width - 60))
            parts.append(f'<rect x="{left}" y="{at}" width="{length:.1f}" height="{row - 4}" rx="2" fill="{colour(label)}"/>')
            parts.append(f'<text x="{left + length + 5:.1f}" y="{at + row - 7}">{value:,.{0 if value >= 1000 else 1}f}</text>')
            at += row
        at += gap
    return "\n".join(parts), at


def chart(results, note):
    """Cost and throughput of the simple protocol, as far as measured. None if there is nothing to draw."""
    section = "simple"
    cases = [case for case in ("16 clients", "64 clients", "500 clients") if any(key[:2] == (section, case) for key in results)]
    # Session mode has as many server connections as clients: another thing, and not drawn.
    labels = [label for label in dict.fromkeys(key[2] for key in results if key[0] == section) if "session" not in label]
    if not cases:
        return None
    cost, one = panel(results, section, "cost", "CPU time of the proxy per transaction, µs (less is better)", 20, cases,
                      [label for label in labels if label != "direct"])
    rate, two = panel(results, section, "tps", "Transactions per second (more is better)", 400, cases, labels)
    height = max(one, two) + 46
    legend, left = [], 20
    for label in labels:
        legend.append(f'<rect x="{left}" y="{height - 40}" width="11" height="11" rx="2" fill="{colour(label)}"/>'
                      f'<text x="{left + 16}" y="{height - 30}">{label}</text>')
        left += 30 + 7 * len(label)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 {height}" width="740" height="{height}" role="img" '
            f'aria-label="pgherd beside PgBouncer and pgpool-II">\n<style>text{{font:11px sans-serif;fill:#444}}'
            '.title{font-weight:bold;fill:#222}.case{fill:#777}</style>\n<rect width="740" height="100%" fill="#ffffff"/>\n'
            f'<text x="20" y="20" class="title">pgbench -S, simple protocol, 20 server connections per pool</text>\n{cost}\n{rate}\n'
            + "\n".join(legend) + f'\n<text x="20" y="{height - 10}" class="case">{note}</text>\n</svg>\n')
