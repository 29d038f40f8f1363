//! What the monitor role must be allowed to do for a failover (HA H11), as `check` asks for it. Asks only; must not change anything.

use crate::config::{OnSyncShortage, Promote, Settings};
use crate::failover::conninfo::has_password;
use crate::health::node::ProbeClient;
use crate::health::reading::Row;

/// Privileges on parameters came with PostgreSQL 15, and so did `pg_checkpoint`.
const GRANTABLE: u32 = 150_000;

/// One row of "t" and "f": superuser, pg_monitor, REPLICATION, pg_promote(), pg_reload_conf().
const RIGHTS_SQL: &str = "SELECT r.rolsuper, pg_catalog.pg_has_role(r.oid, 'pg_monitor', 'USAGE'), r.rolreplication, \
    pg_catalog.has_function_privilege('pg_catalog.pg_promote(boolean, integer)', 'EXECUTE'), \
    pg_catalog.has_function_privilege('pg_catalog.pg_reload_conf()', 'EXECUTE') \
    FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";

/// The same from PostgreSQL 15 on: ALTER SYSTEM on two parameters, pg_checkpoint.
const GRANTS_SQL: &str = "SELECT pg_catalog.has_parameter_privilege('primary_conninfo', 'ALTER SYSTEM'), \
    pg_catalog.has_parameter_privilege('synchronous_standby_names', 'ALTER SYSTEM'), \
    pg_catalog.pg_has_role(current_user, 'pg_checkpoint', 'USAGE')";

/// What would be changed; NULL for who may not read it.
const CONNINFO_SQL: &str = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'primary_conninfo'";

fn yes(rows: &[Row], at: usize) -> bool {
    rows.first().and_then(|row| row.get(at)?.as_deref()) == Some("t")
}

/// What the role lacks for what the settings want, each as the statement that gives it; empty if nothing.
///
/// # Errors
/// The server's, for people.
pub(super) async fn missing(
    settings: &Settings,
    version: u32,
    client: &mut impl ProbeClient,
) -> Result<Vec<String>, String> {
    let failover = &settings.failover;
    let user = &settings.monitor.user;
    let planned = failover.commands.demote.is_some();
    if failover.promote != Promote::Builtin && !planned {
        return Ok(Vec::new());
    }
    let conninfo = client.query(CONNINFO_SQL).await.map_err(|error| error.detail)?;
    let conninfo = conninfo.first().and_then(|row| row.first()?.as_deref()).unwrap_or_default();
    if has_password(conninfo) {
        return Ok(vec![
            "a passfile instead of the password in primary_conninfo, which every reload would log".to_owned(),
        ]);
    }
    let rows = client.query(RIGHTS_SQL).await.map_err(|error| error.detail)?;
    if yes(&rows, 0) {
        return Ok(Vec::new());
    }
    if version < GRANTABLE {
        return Ok(vec![format!("ALTER ROLE {user} SUPERUSER (before PostgreSQL 15 nobody else may ALTER SYSTEM)")]);
    }
    let grants = client.query(GRANTS_SQL).await.map_err(|error| error.detail)?;
    let relaxes = failover.on_sync_shortage == OnSyncShortage::Relax;
    let wanted = [
        (yes(&rows, 1), format!("GRANT pg_monitor TO {user}")),
        (yes(&rows, 2), format!("ALTER ROLE {user} REPLICATION")),
        (yes(&rows, 3), format!("GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO {user}")),
        (yes(&rows, 4), format!("GRANT EXECUTE ON FUNCTION pg_reload_conf() TO {user}")),
        (yes(&grants, 0), format!("GRANT ALTER SYSTEM ON PARAMETER primary_conninfo TO {user}")),
        (yes(&grants, 1) || !relaxes, format!("GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO {user}")),
        (yes(&grants, 2) || !planned, format!("GRANT pg_checkpoint TO {user}")),
    ];
    Ok(wanted.into_iter().filter(|(has, _)| !has).map(|(_, statement)| statement).collect())
}
