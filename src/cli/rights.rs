//! What the monitor role must be allowed to do (HA H11), as `check` asks for it: for what pgherd does by itself or at a switch-over, and, told
//! apart, for what an operator's `promote_node` takes besides. Asks only; must not change anything.

use crate::config::Settings;
use crate::failover::conninfo::has_password;
use crate::failover::engine::{Hook, Mode};
use crate::failover::runner;
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

/// Where this connection comes from, as `pg_hba.conf` has it; NULL on a Unix socket.
pub(super) const ORIGIN_SQL: &str = "SELECT pg_catalog.host(pg_catalog.inet_client_addr()) || '/' || \
    CASE pg_catalog.family(pg_catalog.inet_client_addr()) WHEN 4 THEN '32' ELSE '128' END";

/// One right of the monitor role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    /// To see what WAL receivers do, and `primary_conninfo`.
    See,
    /// To ask a standby whose WAL receiver is gone for its timeline, and to make slots.
    Replicate,
    /// To promote over SQL.
    Promote,
    /// For whatever ALTER SYSTEM has changed.
    Reload,
    /// To recruit standbys, and to point them at another primary.
    Point,
    /// To empty `synchronous_standby_names`.
    Relax,
    /// Before a primary is stopped.
    Checkpoint,
}

const ALL: [Right; 7] =
    [Right::See, Right::Replicate, Right::Promote, Right::Reload, Right::Point, Right::Relax, Right::Checkpoint];

/// What the settings want of the servers.
#[derive(Debug, Clone)]
pub(super) struct Wishes {
    user: String,
    /// What is done without an operator, or by a switch-over.
    rights: Vec<Right>,
    /// What `promote_node` takes besides.
    by_hand: Vec<Right>,
}

/// What the role lacks, as the statements that give it.
#[derive(Debug, Clone, Default)]
pub(super) struct Missing {
    /// For what is configured.
    pub(super) wanted: Vec<String>,
    /// For `promote_node` alone.
    pub(super) by_hand: Vec<String>,
}

impl Right {
    /// The statement that gives it.
    fn statement(self, user: &str) -> String {
        match self {
            Self::See => format!("GRANT pg_monitor TO {user}"),
            Self::Replicate => format!("ALTER ROLE {user} REPLICATION"),
            Self::Promote => format!("GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO {user}"),
            Self::Reload => format!("GRANT EXECUTE ON FUNCTION pg_reload_conf() TO {user}"),
            Self::Point => format!("GRANT ALTER SYSTEM ON PARAMETER primary_conninfo TO {user}"),
            Self::Relax => format!("GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO {user}"),
            Self::Checkpoint => format!("GRANT pg_checkpoint TO {user}"),
        }
    }

    /// Before [`GRANTABLE`] only a superuser has it.
    fn is_grantable(self) -> bool {
        !matches!(self, Self::Point | Self::Relax | Self::Checkpoint)
    }
}

impl Wishes {
    pub(super) fn of(settings: &Settings) -> Self {
        let engine = runner::settings(settings);
        let switches = engine.hooks.contains(&Hook::Demote);
        let promotes = engine.mode == Mode::Builtin || switches;
        // The hook promotes, but who is to be promoted is found out, and without a hook the others are pointed there, by us.
        let acts = promotes || engine.mode == Mode::Command;
        let points = promotes || acts && !engine.hooks.contains(&Hook::Follow);
        let relaxes = acts && engine.relax_sync;
        let several = settings.nodes.len() > 1;
        let is_wanted = |right: &Right| match right {
            // Without it no standby is used for anything.
            Right::See => acts || several,
            Right::Replicate => acts,
            Right::Promote => promotes,
            Right::Reload => points || relaxes,
            Right::Point => points,
            Right::Relax => relaxes,
            Right::Checkpoint => switches,
        };
        let takes = |right: &Right| match right {
            Right::Relax => engine.relax_sync,
            Right::Checkpoint => false,
            _ => true,
        };
        Self {
            user: quoted(&settings.monitor.user),
            rights: ALL.into_iter().filter(is_wanted).collect(),
            by_hand: ALL.into_iter().filter(|right| several && takes(right) && !is_wanted(right)).collect(),
        }
    }

    /// A standby is recruited, for whatever reason, without an operator's `promote_node`.
    pub(super) fn replicate(&self) -> bool {
        self.rights.contains(&Right::Replicate)
    }

    /// What the role lacks.
    ///
    /// # Errors
    /// The server's, for people.
    pub(super) async fn missing(&self, version: u32, client: &mut impl ProbeClient) -> Result<Missing, String> {
        if self.rights.contains(&Right::Point) {
            let conninfo = client.query(CONNINFO_SQL).await.map_err(|error| error.detail)?;
            let conninfo = conninfo.first().and_then(|row| row.first()?.as_deref()).unwrap_or_default();
            if has_password(conninfo) {
                let why = "a passfile instead of the password in primary_conninfo, which every reload would log";
                return Ok(Missing { wanted: vec![why.to_owned()], by_hand: Vec::new() });
            }
        }
        let rows = client.query(RIGHTS_SQL).await.map_err(|error| error.detail)?;
        if yes(&rows, 0) {
            return Ok(Missing::default());
        }
        let grants = match version >= GRANTABLE {
            true => client.query(GRANTS_SQL).await.map_err(|error| error.detail)?,
            false => Vec::new(),
        };
        let has = |right: Right| match right {
            Right::See => yes(&rows, 1),
            Right::Replicate => yes(&rows, 2),
            Right::Promote => yes(&rows, 3),
            Right::Reload => yes(&rows, 4),
            Right::Point => yes(&grants, 0),
            Right::Relax => yes(&grants, 1),
            Right::Checkpoint => yes(&grants, 2),
        };
        let lacks = |rights: &[Right]| {
            let lacks: Vec<Right> = rights.iter().copied().filter(|right| !has(*right)).collect();
            self.statements(&lacks, version)
        };
        Ok(Missing { wanted: lacks(&self.rights), by_hand: lacks(&self.by_hand) })
    }

    fn statements(&self, lacks: &[Right], version: u32) -> Vec<String> {
        let user = &self.user;
        if version < GRANTABLE && lacks.iter().any(|right| !right.is_grantable()) {
            return vec![format!("ALTER ROLE {user} SUPERUSER (before PostgreSQL 15 nobody else may ALTER SYSTEM)")];
        }
        lacks.iter().map(|right| right.statement(user)).collect()
    }

    /// What is missing where a replication connection was refused for that reason, if it is not the role's right, which is known to be
    /// missing then. `origin` is where the server sees us come from.
    pub(super) fn refused(&self, why: &str, origin: Option<&str>, missing: &Missing) -> Option<String> {
        // Messages are in the server's language, names of files in none.
        if why.contains("pg_hba.conf") {
            let user = &self.user;
            let line = match origin {
                Some(origin) => format!("host replication {user} {origin}"),
                None => format!("local replication {user}"),
            };
            return Some(format!("a line in pg_hba.conf: {line}, with the method of its other line (now: {why})"));
        }
        let known = missing.wanted.contains(&Right::Replicate.statement(&self.user));
        (!known).then(|| format!("a replication connection (now: {why})"))
    }
}

fn yes(rows: &[Row], at: usize) -> bool {
    rows.first().and_then(|row| row.get(at)?.as_deref()) == Some("t")
}

/// A role's name as SQL and `pg_hba.conf` have it.
fn quoted(name: &str) -> String {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    if name.chars().all(plain) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
