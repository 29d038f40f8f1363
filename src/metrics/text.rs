//! Prometheus' text format, version 0.0.4. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::cells::BUCKETS;
use super::{Cell, Family, Labels};

/// `node="0",pool="app"`, with what the format wants escaped.
pub(super) fn labels(labels: Labels<'_>) -> String {
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect::<Vec<_>>().join(",")
}

/// The sum of cells with the same labels.
enum Sum {
    Number(i128),
    Times(Box<[u64; BUCKETS + 1]>, u64),
}

impl Sum {
    fn add(&mut self, cell: &Cell) {
        match (self, cell) {
            (Self::Number(sum), Cell::Counter(cell)) => *sum += i128::from(cell.get()),
            (Self::Number(sum), Cell::Gauge(cell)) => *sum += i128::from(cell.get()),
            (Self::Times(counts, micros), Cell::Histogram(cell)) => {
                let (own, time) = cell.get();
                counts.iter_mut().zip(own).for_each(|(sum, own)| *sum = sum.wrapping_add(own));
                *micros = micros.wrapping_add(time);
            }
            // One family is of one kind; see `Registry::add`.
            _ => {}
        }
    }
}

/// Writing to a text cannot fail, so its results are dropped.
pub(super) fn family(out: &mut String, family: &Family) {
    let name = family.name;
    let kind = family.series.first().map_or("untyped", |series| series.cell.kind());
    let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for series in &family.series {
        let empty = match series.cell {
            Cell::Histogram(_) => Sum::Times(Box::new([0; BUCKETS + 1]), 0),
            Cell::Counter(_) | Cell::Gauge(_) => Sum::Number(0),
        };
        sums.entry(&series.labels).or_insert(empty).add(&series.cell);
    }
    for (labels, sum) in sums {
        match sum {
            Sum::Number(number) => {
                let _ = writeln!(out, "{name}{} {number}", braces(labels));
            }
            Sum::Times(counts, micros) => times(out, name, labels, (&*counts, micros)),
        }
    }
}

fn times(out: &mut String, name: &str, labels: &str, (counts, micros): (&[u64], u64)) {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut total = 0_u64;
    for (index, count) in counts.iter().enumerate() {
        total = total.wrapping_add(*count);
        let bound = if index < BUCKETS { seconds(1 << index) } else { "+Inf".to_owned() };
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}");
    }
    let _ = writeln!(out, "{name}_sum{} {}", braces(labels), seconds(micros));
    let _ = writeln!(out, "{name}_count{} {total}", braces(labels));
}

fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn braces(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}
