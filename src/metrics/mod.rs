//! Counters' cells and the text that Prometheus scrapes. Each cell has one writer, who adds to memory that no one else writes; whoever
//! scrapes reads all cells and sums them up. No HTTP, no globals: cells belong to those who count.

mod cells;
mod page;

pub use cells::{BUCKETS, Histogram};
pub use page::{Format, Kind, Page, Sum};
