//! Single cases by hand; whole histories are in `tests/sim`.

use super::*;

/// Nodes 0 to `count` − 1, any of which may be primary.
pub(in crate::failover) fn settings(count: u16) -> Settings {
    let member = |id| Member {
        id: NodeId(id),
        duty: Duty::Any,
        application_name: format!("node{id}"),
        addresses: vec![(format!("10.0.0.{id}"), 5432)],
    };
    Settings {
        mode: Mode::Builtin,
        members: (0..count).map(member).collect(),
        hold_timeout: Duration::from_secs(30),
        max_lag: None,
        allow_data_loss: false,
        relax_sync: false,
        fence: FenceRule::Required,
        hooks: BTreeSet::new(),
        hook_timeout: Duration::from_secs(60),
    }
}
