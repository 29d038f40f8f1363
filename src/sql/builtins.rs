//! What PostgreSQL's own functions may do, by name. A static table; must not know functions of users.

mod table;

use super::Flags;

/// What calling a function of this name means for routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Builtin {
    /// The name, from the table.
    pub(super) name: &'static str,
    /// The flags that a call adds to a text.
    pub(super) flags: Flags,
}

/// Looks a name up (folded as PostgreSQL folds it). `None`: not a function that PostgreSQL brings along.
pub(super) fn lookup(name: &str) -> Option<Builtin> {
    let find = |table: &[&'static str]| table.binary_search(&name).ok().map(|at| table[at]);
    if let Some(name) = find(table::ALLOWED) {
        let flags = if matches!(name, "now" | "transaction_timestamp" | "age") { Flags::NOW_LIKE } else { Flags::NONE };
        return Some(Builtin { name, flags });
    }
    let (name, class) = if let Some(name) = find(table::PRIMARY) {
        (name, Flags::PRIMARY_ONLY)
    } else if let Some(name) = find(table::WRITING) {
        (name, Flags::PRIMARY_ONLY.with(Flags::WRITES))
    } else {
        (find(table::RUNNING)?, Flags::PRIMARY_ONLY.with(Flags::WRITES).with(Flags::OPAQUE))
    };
    Some(Builtin { name, flags: class.with(special(name)) })
}

/// The same for `(x).name`, which calls a function of one argument if no column has the name.
pub(super) fn lookup_attribute(name: &str) -> Option<Builtin> {
    table::ONE_ARGUMENT.binary_search(&name).ok().and_then(|_| lookup(name))
}

/// Flags of single functions that the pools must know of.
fn special(name: &str) -> Flags {
    match name {
        "currval" | "lastval" => Flags::SEQUENCE_VALUE,
        "nextval" | "setval" => Flags::SEQUENCE_WRITE,
        "setseed" => Flags::SETSEED,
        "pg_reload_conf" => Flags::LOGIN_DEFAULTS,
        "pg_advisory_lock" | "pg_advisory_lock_shared" | "pg_try_advisory_lock" | "pg_try_advisory_lock_shared" => {
            Flags::ADVISORY_LOCK
        }
        "pg_advisory_unlock" | "pg_advisory_unlock_shared" | "pg_advisory_unlock_all" => {
            Flags::ADVISORY_UNLOCK.with(Flags::MAY_UNPIN)
        }
        _ => Flags::NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r08_the_tables_are_sorted_and_disjoint() {
        let tables = [table::ALLOWED, table::PRIMARY, table::WRITING, table::RUNNING];
        for table in tables.iter().chain([&table::ONE_ARGUMENT]) {
            assert!(table.windows(2).all(|pair| pair[0] < pair[1]));
        }
        for (n, table) in tables.iter().enumerate() {
            for other in &tables[n + 1..] {
                assert!(table.iter().all(|name| other.binary_search(name).is_err()));
            }
        }
        for name in table::ONE_ARGUMENT {
            assert!(table::ALLOWED.binary_search(name).is_err() && lookup(name).is_some(), "{name}");
        }
    }

    #[test]
    fn r08_what_is_about_the_session_or_the_server_is_not_allowed() {
        for name in [
            "current_setting",
            "pg_backend_pid",
            "inet_server_addr",
            "pg_is_in_recovery",
            "txid_current",
            "pg_current_wal_lsn",
            "pg_stat_reset",
            "pg_reload_conf",
            "random",
            "version",
            "set_config",
            "pg_terminate_backend",
            "lo_get",
            "pg_current_snapshot",
            "query_to_xml",
            "nextval",
            "pg_postmaster_start_time",
            "has_table_privilege",
        ] {
            assert!(lookup(name).expect("it is a function of PostgreSQL").flags.has(Flags::PRIMARY_ONLY), "{name}");
        }
        for name in ["count", "max", "lower", "to_char", "json_agg", "coalesce_not", "generate_series", "row_number"] {
            assert!(lookup(name).is_none_or(|builtin| builtin.flags == Flags::NONE), "{name}");
        }
    }
}
