//! Counters, gauges and histograms, owned by who counts, and their text for Prometheus.
//!
//! Each thread has cells of its own: to count is to add to memory that no one else writes, and to scrape is to read all
//! cells and sum them up. No globals, no HTTP; a [`Registry`] is handed down like everything else.

mod cells;
mod text;

pub use cells::{BUCKETS, Counter, Gauge, Histogram};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Label names with their values, in the order in which they are shown.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// The most series that one family takes, over all threads; what comes later counts without being shown. Labels are
/// bounded by nodes and pools, so that reaching it is a mistake, which must not eat the machine.
const MOST_SERIES: usize = 10_000;

/// Makes cells and shows them. Its lock is taken to make a cell and to scrape, never to count.
#[derive(Debug, Default)]
pub struct Registry {
    families: Mutex<Vec<Family>>,
}

/// All cells of one name.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    series: Vec<Series>,
}

/// One cell and its labels, rendered: `node="0",pool="app"`.
#[derive(Debug)]
struct Series {
    labels: String,
    cell: Cell,
}

#[derive(Debug, Clone)]
enum Cell {
    Counter(Arc<Counter>),
    Gauge(Arc<Gauge>),
    Histogram(Arc<Histogram>),
}

impl Registry {
    /// A new cell for one thread. Cells of the same name and labels are shown as their sum. Names of counters end with
    /// `_total`.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Arc<Counter> {
        let cell = Arc::new(Counter::default());
        self.add(name, help, labels, Cell::Counter(cell.clone()));
        cell
    }

    /// A new cell for one thread. Cells of the same name and labels are shown as their sum.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Arc<Gauge> {
        let cell = Arc::new(Gauge::default());
        self.add(name, help, labels, Cell::Gauge(cell.clone()));
        cell
    }

    /// A new cell for one thread, in seconds. Cells of the same name and labels are shown as their sum. Names end with
    /// `_seconds`.
    pub fn histogram(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Arc<Histogram> {
        let cell = Arc::new(Histogram::default());
        self.add(name, help, labels, Cell::Histogram(cell.clone()));
        cell
    }

    /// The text that Prometheus scrapes (format 0.0.4).
    pub fn render(&self) -> String {
        let mut out = String::new();
        for family in self.families().iter() {
            text::family(&mut out, family);
        }
        out
    }

    fn add(&self, name: &'static str, help: &'static str, labels: Labels<'_>, cell: Cell) {
        let series = Series { labels: text::labels(labels), cell };
        let mut families = self.families();
        match families.iter_mut().find(|family| family.name == name) {
            Some(family) if family.series.len() < MOST_SERIES => {
                debug_assert!(family.series[0].cell.kind() == series.cell.kind(), "{name} is of two kinds");
                family.series.push(series);
            }
            Some(_) => {}
            None => families.push(Family { name, help, series: vec![series] }),
        }
    }

    fn families(&self) -> MutexGuard<'_, Vec<Family>> {
        // A panic elsewhere leaves whole entries behind.
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cell {
    fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn cells_of_all_threads_are_shown_as_their_sum() {
        let registry = Registry::default();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let cell = registry.counter("pgherd_reads_total", "Reads.", &[("node", "0")]);
                std::thread::spawn(move || (0..10_000).for_each(|_| cell.add(1)))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("counts"));
        registry.counter("pgherd_reads_total", "Reads.", &[("node", "1")]).add(5);
        registry.gauge("pgherd_clients", "Clients.", &[]).add(3);
        registry.gauge("pgherd_clients", "Clients.", &[]).add(-1);
        assert_eq!(
            registry.render(),
            "# HELP pgherd_reads_total Reads.\n# TYPE pgherd_reads_total counter\n\
             pgherd_reads_total{node=\"0\"} 40000\npgherd_reads_total{node=\"1\"} 5\n\
             # HELP pgherd_clients Clients.\n# TYPE pgherd_clients gauge\npgherd_clients 2\n"
        );
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let registry = Registry::default();
        let cell = registry.histogram("pgherd_wait_seconds", "Wait.", &[("pool", "a\"b\\c\n")]);
        for micros in [0, 1, 2, 3, 1_000, 10_000_000_000] {
            cell.observe(Duration::from_micros(micros));
        }
        let text = registry.render();
        let at = |bound: &str| {
            let line = format!("pgherd_wait_seconds_bucket{{pool=\"a\\\"b\\\\c\\n\",le=\"{bound}\"}} ");
            let rest = text.split(&line).nth(1).unwrap_or_else(|| panic!("no {bound} in {text}"));
            rest.lines().next().expect("a count").parse::<u64>().expect("a number")
        };
        assert_eq!([at("0.000001"), at("0.000002"), at("0.000004"), at("0.001024"), at("+Inf")], [2, 3, 4, 5, 6]);
        assert!(text.contains("pgherd_wait_seconds_sum{pool=\"a\\\"b\\\\c\\n\"} 10000.001006\n"), "{text}");
        assert!(text.ends_with("_count{pool=\"a\\\"b\\\\c\\n\"} 6\n"), "{text}");
    }
}
