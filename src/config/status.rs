//! The settings as people see them: `SHOW POOL_STATUS`, `pcp_pool_status`, `PGPOOL SHOW`. First pgpool-II's items in the order of its
//! version 4.3.5, as far as they mean something here, with values in its units; then each parameter by its own name. Secrets are in
//! files of their own and never among the values.

use std::time::Duration;

use crate::cluster::{ClusterView, NodeId};

use super::Settings;
use super::diff::Effective;
use super::settings::Node;
use super::table::{Row, all};

/// One item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusRow {
    /// pgpool-II's name, or the dotted key of the parameter.
    pub name: String,
    /// Its value.
    pub value: String,
    /// What it is.
    pub description: String,
}

/// How pgpool-II would print a value of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// As it is.
    Text,
    /// A duration in seconds.
    Seconds,
    /// A duration in milliseconds.
    Millis,
    /// `true` is 1.
    Flag,
    /// A size in bytes.
    Bytes,
    /// 1 if the parameter is set at all.
    IsSet,
    /// A list, separated by commas.
    List,
    /// Nothing of ours: this is what holds here.
    Fixed(&'static str, &'static str),
}

/// pgpool-II's item, the key of ours, its unit.
type Item = (&'static str, &'static str, Unit);

/// In the order in which pgpool-II 4.3.5 lists them.
const ITEMS: &[Item] = &[
    ("backend_clustering_mode", "", Unit::Fixed("1", "Streaming replication.")),
    ("listen_addresses", "listen.addresses", Unit::List),
    ("port", "listen.port", Unit::Text),
    ("socket_dir", "listen.unix_socket_directories", Unit::List),
    ("pcp_listen_addresses", "pcp.addresses", Unit::List),
    ("pcp_port", "pcp.port", Unit::Text),
    ("pcp_socket_dir", "pcp.unix_socket_directories", Unit::List),
    ("enable_pool_hba", "auth.hba_file", Unit::IsSet),
    ("pool_passwd", "auth.users_file", Unit::Text),
    ("authentication_timeout", "listen.authentication_timeout", Unit::Seconds),
    ("ssl", "tls.cert", Unit::IsSet),
    ("ssl_key", "tls.key", Unit::Text),
    ("ssl_cert", "tls.cert", Unit::Text),
    ("ssl_ca_cert", "tls.client_ca", Unit::Text),
    ("num_init_children", "listen.max_clients", Unit::Text),
    ("reserved_connections", "", Unit::Fixed("1", "Clients beyond the limit are refused, they do not wait.")),
    ("max_pool", "pool.size", Unit::Text),
    ("child_life_time", "pool.idle_timeout", Unit::Seconds),
    ("connection_life_time", "pool.max_lifetime", Unit::Seconds),
    ("client_idle_limit", "listen.client_idle_limit", Unit::Seconds),
    ("log_destination", "", Unit::Fixed("stderr", "Where the log goes.")),
    ("log_min_messages", "log.level", Unit::Text),
    ("log_connections", "log.connections", Unit::Flag),
    ("log_disconnections", "log.connections", Unit::Flag),
    ("log_statement", "log.statements", Unit::Flag),
    ("log_per_node_statement", "log.statements", Unit::Flag),
    ("pid_file_name", "pid_file", Unit::Text),
    ("logdir", "failover.state_directory", Unit::Text),
    ("connection_cache", "", Unit::Fixed("1", "Server connections are kept for the next session.")),
    ("load_balance_mode", "routing.load_balance", Unit::Flag),
    ("read_only_function_list", "routing.read_only_functions", Unit::List),
    ("write_function_list", "routing.write_functions", Unit::List),
    ("primary_routing_query_pattern_list", "routing.primary_routing_query_pattern_list", Unit::List),
    ("statement_level_load_balance", "routing.statement_level", Unit::Flag),
    ("sr_check_period", "health_check.period", Unit::Seconds),
    ("sr_check_user", "monitor.user", Unit::Text),
    ("sr_check_database", "monitor.database", Unit::Text),
    ("delay_threshold", "routing.delay_threshold", Unit::Bytes),
    ("delay_threshold_by_time", "routing.delay_threshold_by_time", Unit::Millis),
    ("prefer_lower_delay_standby", "routing.prefer_lower_delay_standby", Unit::Flag),
    ("follow_primary_command", "failover.follow_primary_command", Unit::Text),
    ("database_redirect_preference_list", "routing.database_redirect_list", Unit::List),
    ("app_name_redirect_preference_list", "routing.app_name_redirect_list", Unit::List),
    ("health_check_period", "health_check.period", Unit::Seconds),
    ("health_check_timeout", "health_check.timeout", Unit::Seconds),
    ("health_check_user", "monitor.user", Unit::Text),
    ("health_check_database", "monitor.database", Unit::Text),
    ("health_check_max_retries", "health_check.max_retries", Unit::Text),
    ("health_check_retry_delay", "health_check.retry_delay", Unit::Seconds),
    ("connect_timeout", "health_check.timeout", Unit::Millis),
    ("failover_command", "failover.failover_command", Unit::Text),
    ("failback_command", "failover.failback_command", Unit::Text),
    ("failover_on_backend_error", "", Unit::Fixed("0", "A session's failure starts a check; it condemns nobody.")),
    ("failover_on_backend_shutdown", "", Unit::Fixed("0", "A session's failure starts a check; it condemns nobody.")),
    ("detach_false_primary", "", Unit::Fixed("1", "Of two primaries the one of an older epoch is not used.")),
    ("auto_failback", "failover.auto_failback", Unit::Flag),
    ("auto_failback_interval", "failover.auto_failback_interval", Unit::Seconds),
    ("recovery_user", "recovery.user", Unit::Text),
    ("recovery_1st_stage_command", "recovery.first_stage_command", Unit::Text),
    ("recovery_2nd_stage_command", "", Unit::Fixed("", "Streaming replication has one stage.")),
    ("recovery_timeout", "recovery.timeout", Unit::Seconds),
    ("search_primary_node_timeout", "failover.hold_timeout", Unit::Seconds),
    ("use_watchdog", "watchdog.name", Unit::IsSet),
    ("trusted_servers", "watchdog.trusted_servers", Unit::List),
    ("trusted_server_command", "watchdog.trusted_server_command", Unit::Text),
    ("delegate_IP", "watchdog.virtual_ip", Unit::Text),
    ("wd_priority", "watchdog.priority", Unit::Text),
    ("memory_cache_enabled", "", Unit::Fixed("0", "There is no query cache.")),
];

impl Settings {
    /// All items; `view` gives the nodes' status and lag. See the head of this file for their order.
    pub fn status(&self, view: &ClusterView) -> Vec<StatusRow> {
        let item = |(name, key, unit): &Item| {
            let described = all().iter().find(|row| row.key() == *key).map_or("", |row| row.doc);
            let (value, description) = match unit {
                Unit::Fixed(value, why) => ((*value).to_owned(), *why),
                unit => (unit.show(self.effective.get(key)), described),
            };
            StatusRow { name: (*name).to_owned(), value, description: description.to_owned() }
        };
        let mut rows: Vec<_> = ITEMS.iter().map(item).collect();
        for node in &self.nodes {
            rows.extend(backend(node, view));
        }
        rows.extend(own(&self.effective));
        rows
    }
}

/// pgpool-II's items of one node.
fn backend(node: &Node, view: &ClusterView) -> impl Iterator<Item = StatusRow> {
    let NodeId(id) = node.id;
    let seen = view.node(node.id);
    let directory = node.data_directory.clone().unwrap_or_default();
    let flag = match (node.flags.always_primary, node.flags.disallow_to_failover) {
        (true, true) => "DISALLOW_TO_FAILOVER|ALWAYS_PRIMARY",
        (true, false) => "ALLOW_TO_FAILOVER|ALWAYS_PRIMARY",
        (false, true) => "DISALLOW_TO_FAILOVER",
        (false, false) => "ALLOW_TO_FAILOVER",
    };
    let delay = seen.and_then(|node| node.lag).unwrap_or(0).to_string();
    let items = [
        ("backend_hostname", node.host.clone(), "Host of the server."),
        ("backend_port", node.port.to_string(), "Its port."),
        ("backend_weight", format!("{:.6}", view.share(node.id)), "Its share of the reads."),
        ("backend_data_directory", directory, "Its data directory on its own host."),
        ("backend_status", seen.map_or("down", |node| node.pgpool_status()).to_owned(), "Whether it is used."),
        ("standby_delay", delay, "Bytes that it is behind the primary."),
        ("backend_flag", flag.to_owned(), "What may be done to it."),
        ("backend_application_name", node.application_name.clone(), "What it calls itself as a standby."),
    ];
    items.into_iter().map(move |(name, value, description)| StatusRow {
        name: format!("{name}{id}"),
        value,
        description: description.to_owned(),
    })
}

/// Every parameter by its own name.
fn own(effective: &Effective) -> Vec<StatusRow> {
    let row = |(key, value): (&str, &str)| StatusRow {
        name: key.to_owned(),
        value: bare(value),
        description: described(key).map_or("", |row| row.doc).to_owned(),
    };
    effective.all().map(row).collect()
}

/// The row of a key such as `node[1].health_check.period`.
fn described(key: &str) -> Option<&'static Row> {
    let mut plain = String::new();
    let mut inside = false;
    for letter in key.chars() {
        match letter {
            '[' => inside = true,
            ']' => inside = false,
            letter if !inside => plain.push(letter),
            _ => {}
        }
    }
    let plain = plain.strip_prefix("node.health_check").map_or(plain.clone(), |rest| format!("health_check{rest}"));
    all().iter().find(|row| row.key() == plain)
}

/// Without the quotes of the file.
fn bare(value: &str) -> String {
    match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => value.to_owned(),
    }
}

impl Unit {
    fn show(self, value: Option<&str>) -> String {
        let text = value.map(bare);
        let text = text.as_deref();
        match self {
            Self::Text | Self::Fixed(..) => text.unwrap_or_default().to_owned(),
            Self::IsSet => u8::from(text.is_some()).to_string(),
            Self::Flag => u8::from(text == Some("true")).to_string(),
            Self::List => {
                let inner = text.unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
                inner.split(", ").map(bare).collect::<Vec<_>>().join(",")
            }
            Self::Seconds => text.and_then(|text| super::units::duration(text).ok()).map_or("0".to_owned(), |time| {
                // pgpool-II knows whole seconds; less than one is not none.
                if time.is_zero() { "0".to_owned() } else { time.as_secs().max(1).to_string() }
            }),
            Self::Millis => text
                .and_then(|text| super::units::duration(text).ok())
                .map_or(0, |time: Duration| time.as_millis())
                .to_string(),
            Self::Bytes => text.and_then(|text| super::units::size(text).ok()).unwrap_or(0).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const FILE: &str = r#"
        [listen]
        addresses = ["10.0.0.1", "::1"]
        authentication_timeout = "90s"
        [pool]
        size = 7
        [routing]
        delay_threshold = "16MB"
        write_functions = ["a\\d", "b"]
        [[node]]
        id = 3
        host = "db3"
        [node.health_check]
        period = "5s"
    "#;

    #[test]
    fn items_come_in_pgpools_order_and_units_and_then_our_own() {
        let settings = Settings::parse(FILE, Path::new("/etc/pgherd.toml")).expect("good");
        let rows = settings.status(&ClusterView::empty());
        let value = |name: &str| {
            let row = rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no {name}"));
            assert!(!row.description.is_empty(), "{name}");
            row.value.clone()
        };
        assert_eq!(value("listen_addresses"), "10.0.0.1,::1");
        assert_eq!(value("authentication_timeout"), "90");
        assert_eq!([value("max_pool"), value("pool.size")], ["7", "7"]);
        assert_eq!(value("delay_threshold"), "16777216");
        assert_eq!(value("write_function_list"), "a\\d,b");
        assert_eq!([value("enable_pool_hba"), value("ssl"), value("load_balance_mode")], ["0", "0", "1"]);
        assert_eq!([value("health_check_retry_delay"), value("connect_timeout")], ["1", "1000"]);
        assert_eq!([value("backend_hostname3"), value("backend_status3")], ["db3", "down"]);
        assert_eq!(value("node[3].health_check.period"), "5s");
        let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        let at = |name: &str| names.iter().position(|known| *known == name);
        assert!(at("port") < at("num_init_children") && at("memory_cache_enabled") < at("backend_hostname3"));
        assert!(at("backend_application_name3") < at("listen.port"));
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
    }

    #[test]
    fn every_item_of_ours_has_a_row() {
        for (name, key, unit) in ITEMS {
            let fixed = matches!(unit, Unit::Fixed(..));
            assert_eq!(fixed, key.is_empty(), "{name}");
            assert!(fixed || all().iter().any(|row| row.key() == *key), "{name}: {key}");
        }
    }
}
