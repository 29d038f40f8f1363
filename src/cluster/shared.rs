//! The one handle through which both planes see the cluster: the newest view and the newest samples, both readable
//! without a lock. Only the control thread writes. Must not decide anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};

use super::{ClusterView, Events, Group, Lease, NodeId, Records, Sample, Samples};

/// What everyone sees of the cluster. Who must *wait* for a change gets a `watch::Receiver` of the generation from
/// `health::runner` besides.
#[derive(Debug)]
pub struct Shared {
    view: ArcSwap<ClusterView>,
    /// Positions, see [`Samples`] for the rules.
    pub samples: Samples,
    /// What has happened.
    pub events: Events,
    /// Health checks, for people.
    pub records: Records,
    /// Until when writes may go, if there are partner proxies.
    pub lease: Lease,
    /// The partner proxies, for people; none: there are none.
    pub group: ArcSwapOption<Group>,
}

impl Shared {
    /// Nothing known yet; `now` becomes the beginning of the samples' time.
    pub fn new(now: Instant) -> Self {
        Self {
            view: ArcSwap::from_pointee(ClusterView::empty()),
            samples: Samples::new(now),
            events: Events::default(),
            records: Records::default(),
            lease: Lease::default(),
            group: ArcSwapOption::empty(),
        }
    }

    /// The present view, for the length of one decision.
    pub fn view(&self) -> Guard<Arc<ClusterView>> {
        self.view.load()
    }

    /// The present view, to be kept.
    pub fn snapshot(&self) -> Arc<ClusterView> {
        self.view.load_full()
    }

    /// Replaces the view. Only the control thread may call this.
    pub fn publish(&self, view: ClusterView) {
        self.view.store(Arc::new(view));
    }

    /// The newest sample of the primary, if it is of the present epoch.
    pub fn primary_sample(&self) -> Option<Sample> {
        let view = self.view();
        self.samples.newest(view.primary?).filter(|sample| sample.epoch == view.epoch)
    }

    /// The newest sample of a standby, if it is of the present epoch. Counts only for a server connection that was
    /// established before it was asked, see [`Samples`].
    pub fn standby_sample(&self, node: NodeId) -> Option<Sample> {
        let view = self.view();
        if view.primary == Some(node) {
            return None;
        }
        self.samples.newest(node).filter(|sample| sample.epoch == view.epoch)
    }

    /// How old the primary's newest valid sample is: the sampler's metric. `None` without one.
    pub fn sample_age(&self, now: Instant) -> Option<Duration> {
        self.primary_sample().map(|sample| now.saturating_duration_since(sample.asked))
    }
}
