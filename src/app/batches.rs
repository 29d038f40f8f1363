//! A data thread's short writes go out together. Must not know what they are.

use std::rc::Rc;

use crate::net;
use crate::session::Context;

/// Until the thread ends.
pub(super) fn send(context: &Rc<Context>) {
    let counters = context.counters.clone();
    let tell = Box::new(move |writes: usize, left: usize| {
        counters.batches.add(1);
        counters.batched.add(writes as u64);
        counters.batched_left.add(left as u64);
    });
    tokio::task::spawn_local(async move {
        let Err(error) = net::send_in_batches(tell).await;
        tracing::info!(%error, "each connection is written to by itself: io_uring cannot be used");
    });
}
