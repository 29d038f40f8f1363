//! More clients than server connections: who waits is served in order, and what one client does costs the others little.
//!
//! On real servers, with a debug build and its bounds; `make compare` measures the same with thousands of clients.

mod common;

#[path = "pressure/large.rs"]
mod large;
#[path = "pressure/order.rs"]
mod order;
#[path = "pressure/storm.rs"]
mod storm;

/// One test at a time: each measures, and what another one does would be measured too.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
