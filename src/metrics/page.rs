//! The text of a scrape: Prometheus' format 0.0.4, or OpenMetrics 1.0. Pure.

use std::fmt::Write;

use super::cells::{BUCKETS, Histogram};

/// The first bound that is shown, as a power of two in microseconds: 16 µs. What is below counts there.
const FIRST: usize = 4;
/// The last one: 33.5 s.
const LAST: usize = 25;

/// How the text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Format {
    /// The value of Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows. Its name is given without `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Times, in seconds.
    Histogram,
}

/// A sum over the histograms of several threads.
#[derive(Debug, Clone)]
pub struct Sum {
    counts: [u64; BUCKETS + 1],
    micros: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Self { counts: [0; BUCKETS + 1], micros: 0 }
    }
}

impl Sum {
    /// Adds what a histogram holds now.
    #[must_use]
    pub fn with(mut self, histogram: &Histogram) -> Self {
        let (counts, micros) = histogram.get();
        self.counts.iter_mut().zip(counts).for_each(|(sum, own)| *sum = sum.wrapping_add(own));
        self.micros = self.micros.wrapping_add(micros);
        self
    }

    /// Nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }
}

/// A text under way.
#[derive(Debug)]
pub struct Page {
    out: String,
    format: Format,
    name: String,
    kind: Kind,
}

impl Page {
    /// Empty.
    pub fn new(format: Format) -> Self {
        Self { out: String::with_capacity(32 * 1024), format, name: String::new(), kind: Kind::Gauge }
    }

    /// Begins a family; samples that follow are of it. Each name may come once. Writing to a text cannot fail, so its results are
    /// dropped here and below.
    pub fn family(&mut self, kind: Kind, name: &str, help: &str) {
        name.clone_into(&mut self.name);
        self.kind = kind;
        let suffix = if kind == Kind::Counter && self.format == Format::Prometheus { "_total" } else { "" };
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.out, "# HELP {name}{suffix} {}", help.replace('\\', "\\\\").replace('\n', "\\n"));
        let _ = writeln!(self.out, "# TYPE {name}{suffix} {word}");
    }

    /// One whole number.
    pub fn count(&mut self, labels: &[(&str, &str)], value: u64) {
        self.sample(labels, &value.to_string());
    }

    /// One number.
    pub fn value(&mut self, labels: &[(&str, &str)], value: f64) {
        self.sample(labels, &value.to_string());
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: &str) {
        let suffix = if self.kind == Kind::Counter { "_total" } else { "" };
        let labels = braces(&rendered(labels));
        let _ = writeln!(self.out, "{}{suffix}{labels} {value}", self.name);
    }

    /// The times of one set of labels.
    pub fn times(&mut self, labels: &[(&str, &str)], sum: &Sum) {
        let labels = rendered(labels);
        let comma = if labels.is_empty() { "" } else { "," };
        let name = &self.name;
        let mut total = 0_u64;
        for (index, count) in sum.counts.iter().enumerate() {
            total = total.wrapping_add(*count);
            if (FIRST..=LAST).contains(&index) {
                let bound = seconds(1 << index);
                let _ = writeln!(self.out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}");
            }
        }
        let _ = writeln!(self.out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}");
        let _ = writeln!(self.out, "{name}_sum{} {}", braces(&labels), seconds(sum.micros));
        let _ = writeln!(self.out, "{name}_count{} {total}", braces(&labels));
    }

    /// The text.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

/// `node="0",pool="app"`, with what the format wants escaped.
fn rendered(labels: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        if !out.is_empty() {
            out.push(',');
        }
        let _ = write!(out, "{name}=\"");
        for letter in value.chars() {
            match letter {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                letter => out.push(letter),
            }
        }
        out.push('"');
    }
    out
}

fn braces(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

/// Exact, and never in scientific notation.
fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn page(format: Format) -> String {
        let mut page = Page::new(format);
        page.family(Kind::Counter, "pgherd_reads", "Reads.");
        page.count(&[("node", "0")], 7);
        page.family(Kind::Gauge, "pgherd_clients", "Clients\\\nnow.");
        page.value(&[], 1.5);
        page.finish()
    }

    #[test]
    fn both_formats_name_counters_as_they_want() {
        let help = "# HELP pgherd_clients Clients\\\\\\nnow.\n# TYPE pgherd_clients gauge\npgherd_clients 1.5\n";
        let counter =
            "# HELP pgherd_reads_total Reads.\n# TYPE pgherd_reads_total counter\npgherd_reads_total{node=\"0\"} 7\n";
        assert_eq!(page(Format::Prometheus), format!("{counter}{help}"));
        let counter = "# HELP pgherd_reads Reads.\n# TYPE pgherd_reads counter\npgherd_reads_total{node=\"0\"} 7\n";
        assert_eq!(page(Format::OpenMetrics), format!("{counter}{help}# EOF\n"));
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound_over_all_threads() {
        let (one, two) = (Histogram::default(), Histogram::default());
        for micros in [0, 16, 17, 1_000] {
            one.observe(Duration::from_micros(micros));
        }
        two.observe_for(Duration::from_secs(10_000), 2);
        let mut page = Page::new(Format::Prometheus);
        page.family(Kind::Histogram, "pgherd_wait_seconds", "Wait.");
        page.times(&[("pool", "a\"b\\c\n")], &Sum::default().with(&one).with(&two));
        let text = page.finish();
        let at = |bound: &str| {
            let line = format!("pgherd_wait_seconds_bucket{{pool=\"a\\\"b\\\\c\\n\",le=\"{bound}\"}} ");
            let rest = text.split(&line).nth(1).unwrap_or_else(|| panic!("no {bound} in {text}"));
            rest.lines().next().expect("a count").parse::<u64>().expect("a number")
        };
        assert_eq!([at("0.000016"), at("0.000032"), at("0.001024"), at("33.554432"), at("+Inf")], [2, 3, 4, 4, 6]);
        assert!(text.contains("pgherd_wait_seconds_sum{pool=\"a\\\"b\\\\c\\n\"} 20000.001033\n"), "{text}");
        assert!(text.ends_with("_count{pool=\"a\\\"b\\\\c\\n\"} 6\n"), "{text}");
    }
}
