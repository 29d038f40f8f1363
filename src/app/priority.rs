//! The control thread before others where the system allows it, so that a busy machine does not cost the lease (HA H18). Best effort, by nice alone: a
//! real-time class would let a loop in it starve the machine, and locked memory would be that of all caches and pools. Must not fail.

use rustix::process::{getpriority_process, setpriority_process};

/// Nearly ten times the share of a thread of the usual priority, under CFS.
const NICE: i32 = -10;

/// Raises the calling thread, and what it starts; programs of the operator's go back to the usual priority.
pub(super) fn raise(thread: &str) {
    // Somebody may have done more for the whole process.
    if getpriority_process(None).is_ok_and(|nice| nice <= NICE) {
        return;
    }
    // On Linux the priority is a thread's.
    match setpriority_process(None, NICE) {
        Ok(()) => tracing::info!(thread, nice = NICE, "it runs before others"),
        Err(error) => tracing::debug!(thread, %error, "it runs as others do: neither CAP_SYS_NICE nor LimitNICE"),
    }
}
