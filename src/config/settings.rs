//! The validated configuration as the rest of pgherd sees it. Values only: made by [`Settings::load`], handed down by
//! value. Must not read files, and must not know how a file spells a value.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::NodeId;
use crate::support::command_line::{lettered, named};

use super::diff::Effective;
use super::secret::Secret;

/// Everything that the file says, checked, with defaults filled in and paths made absolute to the file's folder.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the number of the running process is kept.
    pub pid_file: PathBuf,
    /// The client port.
    pub listen: Listen,
    /// Sizes and modes of the pools.
    pub pool: Pool,
    /// Who may log in.
    pub auth: Auth,
    /// Certificates for clients; none: clients are told that there is no TLS.
    pub tls: Option<Tls>,
    /// The role that pgherd itself uses.
    pub monitor: Monitor,
    /// The servers, in the order of their numbers; at least one.
    pub nodes: Vec<Node>,
    /// Where statements go.
    pub routing: Routing,
    /// The checks that each node has unless it overrides them; nodes carry their own effective ones.
    pub health_check: HealthCheck,
    /// What happens when a primary dies.
    pub failover: Failover,
    /// Online recovery.
    pub recovery: Recovery,
    /// The administration port.
    pub pcp: Pcp,
    /// Metrics, health and console over HTTP; off unless the section is there.
    pub web: Option<Web>,
    /// The partner proxies; off unless the section is there.
    pub watchdog: Option<Watchdog>,
    /// What is logged, and how.
    pub log: Log,
    /// What each parameter of the table came to, for [`Settings::diff`].
    pub(super) effective: Effective,
}

impl Settings {
    /// The node with that number.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

/// `[listen]`
#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    /// TCP addresses or host names; `*` means all of both families. May be empty if there is a Unix socket.
    pub addresses: Vec<String>,
    /// TCP port and suffix of the Unix sockets.
    pub port: u16,
    /// Folders that get a `.s.PGSQL.<port>` each.
    pub unix_socket_directories: Vec<PathBuf>,
    /// Clients over all data threads; one more is refused with 53300.
    pub max_clients: u32,
    /// From accept to the end of the login.
    pub authentication_timeout: Duration,
    /// Data threads; 0: one per core.
    pub threads: usize,
    /// Short writes of a data thread go out together.
    pub io_uring: bool,
    /// `listen(2)` backlog of each socket.
    pub backlog: u32,
    /// A client that is silent for so long outside a transaction is disconnected; zero: never.
    pub client_idle_limit: Duration,
    /// How long an orderly stop waits for transactions.
    pub stop_timeout: Duration,
}

/// When a server connection goes back to its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolMode {
    /// At the end of each transaction.
    Transaction,
    /// When the client leaves.
    Session,
    /// At the end of each statement; blocks are refused.
    Statement,
}

/// What becomes of a transaction whose effects on its session cannot be known from its text (SESSIONS R1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpaquePolicy {
    /// The server connection is probed and cleaned before another session gets it.
    Clean,
    /// The session keeps the server connection.
    Pin,
}

/// `[pool]`
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Unless a rule says otherwise.
    pub mode: PoolMode,
    /// Server connections per node, database and user, over all threads.
    pub size: u32,
    /// Kept open even when idle; needs a stored password (SESSIONS R22).
    pub min_size: u32,
    /// Longest wait for a server connection; then 53300.
    pub queue_timeout: Duration,
    /// An idle server connection beyond `min_size` is closed after this; zero: never.
    pub idle_timeout: Duration,
    /// A server connection is replaced after this, once idle; zero: never.
    pub max_lifetime: Duration,
    /// Pinned sessions per pool (SESSIONS R5); none: half the pool's size.
    pub max_pinned: Option<u32>,
    /// Prepared statements kept on one server connection; the least used goes first.
    pub max_prepared_statements: u32,
    /// See [`OpaquePolicy`].
    pub opaque: OpaquePolicy,
    /// Overrides; the first that matches counts.
    pub rules: Vec<PoolRule>,
}

/// `[[pool.rule]]`: overrides for a database, a user, or both; what is `None` matches all, or overrides nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PoolRule {
    /// Only this database.
    pub database: Option<String>,
    /// Only this user.
    pub user: Option<String>,
    /// Instead of `pool.mode`.
    pub mode: Option<PoolMode>,
    /// Instead of `pool.size`.
    pub size: Option<u32>,
    /// Instead of `pool.min_size`.
    pub min_size: Option<u32>,
    /// Instead of `pool.queue_timeout`.
    pub queue_timeout: Option<Duration>,
}

/// What holds for one database and user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// When a server connection goes back.
    pub mode: PoolMode,
    /// Server connections per node.
    pub size: u32,
    /// Kept open even when idle.
    pub min_size: u32,
    /// Longest wait for one.
    pub queue_timeout: Duration,
}

impl Pool {
    /// The limits of a login: those of the first rule that matches, filled up from `[pool]`.
    pub fn for_login(&self, database: &str, user: &str) -> PoolLimits {
        let all = PoolRule::default();
        let rule = self.rules.iter().find(|rule| rule.matches(database, user)).unwrap_or(&all);
        let size = rule.size.unwrap_or(self.size);
        PoolLimits {
            mode: rule.mode.unwrap_or(self.mode),
            size,
            // A rule that only shrinks the pool shrinks the inherited minimum with it.
            min_size: rule.min_size.unwrap_or(self.min_size).min(size),
            queue_timeout: rule.queue_timeout.unwrap_or(self.queue_timeout),
        }
    }
}

impl PoolRule {
    fn matches(&self, database: &str, user: &str) -> bool {
        self.database.as_deref().is_none_or(|name| name == database)
            && self.user.as_deref().is_none_or(|name| name == user)
    }
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Auth {
    /// pg_hba.conf-like rules; none: scram-sha-256 for everyone (SESSIONS R22).
    pub hba_file: Option<PathBuf>,
    /// Names with passwords or verifiers.
    pub users_file: Option<PathBuf>,
    /// See everybody's sessions.
    pub admin_users: Vec<String>,
    /// May look; `*` is everyone.
    pub stats_users: Vec<String>,
}

/// `[tls]`: what pgherd shows its clients.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Whoever signs client certificates, PEM.
    pub client_ca: Option<PathBuf>,
}

/// `[monitor]`: the role for health checks, roles, lag and promotion.
#[derive(Debug, Clone, PartialEq)]
pub struct Monitor {
    /// Its name.
    pub user: String,
    /// The first line of `password_file`.
    pub password: Option<Secret>,
    /// The database that it connects to.
    pub database: String,
}

/// What a node is declared to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeRole {
    /// Whatever it says.
    Auto,
    /// The primary, without asking (a managed service's writer endpoint).
    Primary,
    /// Never a primary.
    Standby,
}

/// libpq's `sslmode` for the connection to a server (without `allow`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS if the server has it.
    Prefer,
    /// TLS or nothing; the certificate is not looked at.
    Require,
    /// The certificate must be signed by `ca`.
    VerifyCa,
    /// And must bear the host's name.
    VerifyFull,
}

/// `[[node]]`: one server.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its number; stable over reloads.
    pub id: NodeId,
    /// For people; unique.
    pub name: String,
    /// Host name or address; a path that starts with `/` is the folder of a Unix socket.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Share of the reads; 0 takes none.
    pub weight: f64,
    /// Over all pools.
    pub max_connections: u32,
    /// See [`NodeRole`].
    pub role: NodeRole,
    /// TLS towards it.
    pub sslmode: SslMode,
    /// Whoever signs its certificate, PEM.
    pub ca: Option<PathBuf>,
    /// The walreceiver's `application_name` when it is a standby; empty: the node's name.
    pub application_name: String,
    /// Where other servers reach it for replication; the same as `host` unless set.
    pub replication_host: String,
    /// The same as `port` unless set.
    pub replication_port: u16,
    /// Its `PGDATA`, handed to scripts; a path on its host, left as written.
    pub data_directory: Option<String>,
    /// See [`NodeFlags`].
    pub flags: NodeFlags,
    /// Its own checks: `[health_check]` with `[node.health_check]` laid over it.
    pub health_check: HealthCheck,
}

/// `flags` of a `[[node]]`, pgpool's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeFlags {
    /// `DISALLOW_TO_FAILOVER`: never detached nor promoted by pgherd.
    pub disallow_to_failover: bool,
    /// `ALWAYS_PRIMARY`: the primary is this one, whatever happens.
    pub always_primary: bool,
}

/// What a read may miss (SESSIONS R7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// A session reads what it wrote.
    Session,
    /// A session reads what any session of this proxy wrote.
    Proxy,
    /// Whatever the standby has.
    Eventual,
}

/// Where a redirect points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RedirectTarget {
    /// One node.
    Node(NodeId),
    /// The primary.
    Primary,
    /// Any standby, by weight.
    Standby,
}

/// One entry of a redirect list, written `pattern:target` or `pattern:target(ratio)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// Regular expression for the whole name (anchored at both ends).
    pub pattern: String,
    /// Where the reads go.
    pub target: RedirectTarget,
    /// Share of the sessions that are redirected, 0 to 1.
    pub ratio: f64,
}

/// Where reads go whose standby is beyond a delay threshold: `prefer_lower_delay_standby`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TooLate {
    /// To the least delayed other standby, and to the primary if all are too late.
    OtherStandby,
    /// To the primary.
    Primary,
}

/// `[routing]`
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// Off: everything goes to the primary.
    pub load_balance: bool,
    /// Choose a node for each statement instead of each session.
    pub statement_level: bool,
    /// See [`Consistency`].
    pub consistency: Consistency,
    /// Bytes of lag beyond which a standby gets no reads; 0: any lag will do.
    pub delay_threshold: u64,
    /// The same in time; zero: any.
    pub delay_threshold_by_time: Duration,
    /// See [`TooLate`].
    pub too_late: TooLate,
    /// Reads whose text matches one of these regular expressions go to the primary.
    pub primary_routing_query_pattern_list: Vec<String>,
    /// By `application_name` of the startup packet; goes before database and user.
    pub app_name_redirect_list: Vec<Redirect>,
    /// By database.
    pub database_redirect_list: Vec<Redirect>,
    /// By user.
    pub user_redirect_list: Vec<Redirect>,
    /// Regular expressions for whole names of functions that are known to be reads.
    pub read_only_functions: Vec<String>,
    /// Regular expressions for whole names of functions that are known to write.
    pub write_functions: Vec<String>,
}

/// `[health_check]` and `[node.health_check]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCheck {
    /// From the start of one check to the start of the next.
    pub period: Duration,
    /// For one whole check: connect, login, query.
    pub timeout: Duration,
    /// Failures after the first that are forgiven.
    pub max_retries: u32,
    /// Pause before each retry.
    pub retry_delay: Duration,
    /// Checks in a row that must succeed before a node that was down is used again.
    pub successes: u32,
}

/// Who promotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Promote {
    /// Nobody: a dead primary is only detached.
    Never,
    /// pgherd itself, with `pg_promote()`.
    Builtin,
    /// `failover_command`.
    Command,
}

/// What a failing `fence_command` does to a failover (HA H8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fence {
    /// Stops it.
    Required,
    /// Is reported.
    BestEffort,
}

/// A new primary without enough synchronous standbys (HA H9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnSyncShortage {
    /// Statements stay held.
    Wait,
    /// `synchronous_standby_names` is relaxed.
    Relax,
}

/// A proxy that lost the majority of its voters (HA H17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnQuorumLoss {
    /// Sends no more writes.
    Stop,
    /// Goes on with the primary that it knows.
    HoldCourse,
}

/// `[failover]`
#[derive(Debug, Clone, PartialEq)]
pub struct Failover {
    /// See [`Promote`].
    pub promote: Promote,
    /// How long statements that need a primary are held.
    pub hold_timeout: Duration,
    /// How many statements are held at a time; further ones are refused at once.
    pub max_held: u32,
    /// How many bytes of memory they take together; further ones are refused at once.
    pub max_held_memory: u64,
    /// Bytes that a standby may lack and still be promoted; none: any.
    pub max_lag_on_failover: Option<u64>,
    /// See [`Fence`].
    pub fence: Fence,
    /// Promote even if acknowledged commits may be lost.
    pub allow_data_loss: bool,
    /// See [`OnSyncShortage`].
    pub on_sync_shortage: OnSyncShortage,
    /// See [`OnQuorumLoss`].
    pub on_quorum_loss: OnQuorumLoss,
    /// Standbys that stream from the current primary again are attached again.
    pub auto_failback: bool,
    /// Shortest time between two such returns of one node.
    pub auto_failback_interval: Duration,
    /// The hooks.
    pub commands: FailoverCommands,
    /// What must survive the process.
    pub state_directory: PathBuf,
}

/// The hooks of `[failover]`: a program with arguments and placeholders, run without a shell.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FailoverCommands {
    /// Run when a node is detached; with `promote = "command"` it promotes.
    pub failover: Option<String>,
    /// Run for each remaining standby after a promotion.
    pub follow_primary: Option<String>,
    /// Run when a node is attached.
    pub failback: Option<String>,
    /// Run before a promotion, to cut the old primary off.
    pub fence: Option<String>,
    /// Stops the old primary in a switch-over.
    pub demote: Option<String>,
    /// The longest that one of them may take.
    pub timeout: Duration,
    /// They run in this folder, the configuration file's, and programs with a relative path are found from there.
    pub folder: PathBuf,
}

impl FailoverCommands {
    /// Those that are set, by their parameters' names.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("failover_command", &self.failover),
            ("follow_primary_command", &self.follow_primary),
            ("failback_command", &self.failback),
            ("fence_command", &self.fence),
            ("demote_command", &self.demote),
        ];
        all.into_iter().filter_map(|(name, command)| Some((name, command.as_deref()?)))
    }
}

/// `[recovery]`: online recovery of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovery {
    /// Role that may run it; none: the monitor role.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// The database that it connects to.
    pub database: String,
    /// Script in the primary's data directory, run by pgpool's extension.
    pub first_stage_command: Option<String>,
    /// A hook on this host instead of the extension.
    pub command: Option<String>,
    /// Longest run of what copies.
    pub copy_timeout: Duration,
    /// From the end of the copy until the node streams.
    pub timeout: Duration,
}

/// `[pcp]`: the administration port; on when there is a `users_file`.
#[derive(Debug, Clone, PartialEq)]
pub struct Pcp {
    /// TCP addresses.
    pub addresses: Vec<String>,
    /// TCP port and suffix of the Unix sockets.
    pub port: u16,
    /// Folders that get a `.s.PGSQL.<port>` each.
    pub unix_socket_directories: Vec<PathBuf>,
    /// In pcp.conf's format; none: no one can log in, and the port stays closed.
    pub users_file: Option<PathBuf>,
    /// See [`PcpLayout`].
    pub layout: PcpLayout,
}

/// The fields that the `pcp_*` programs of a version of pgpool-II expect: they cannot tell theirs. In the order of the versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PcpLayout {
    /// From 4.3.1 on, Debian 12's.
    V43,
    /// 4.4
    V44,
    /// 4.5 and 4.6
    V45,
    /// From 4.7 on.
    V47,
}

/// `[web]`
#[derive(Debug, Clone, PartialEq)]
pub struct Web {
    /// TCP address.
    pub address: String,
    /// TCP port.
    pub port: u16,
}

/// How the virtual address is held (HA H19).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VipOn {
    /// On a TUN device that dies with the process.
    Tun,
    /// On this interface.
    Interface(String),
}

/// The third vote of a pair (HA H16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arbiter {
    /// A majority of the database servers.
    Nodes,
    /// A third pgherd that serves nobody.
    Witness,
    /// Hosts that answer a ping.
    Trusted,
}

/// `[watchdog]`
#[derive(Debug, Clone, PartialEq)]
pub struct Watchdog {
    /// This proxy, as its peers call it.
    pub name: String,
    /// Where it listens for peers.
    pub address: String,
    /// TCP port for peers.
    pub port: u16,
    /// UDP port for heartbeats.
    pub heartbeat_port: u16,
    /// The higher one leads.
    pub priority: i64,
    /// The address that follows the leader; none: there is none.
    pub virtual_ip: Option<std::net::IpAddr>,
    /// See [`VipOn`].
    pub vip_on: VipOn,
    /// Programs of the operator's.
    pub commands: WatchdogCommands,
    /// Interfaces that clients come by, besides the one that has the address.
    pub monitoring_interfaces: Vec<String>,
    /// How long leadership lasts without renewal.
    pub lease: Duration,
    /// See [`Arbiter`].
    pub arbiter: Arbiter,
    /// Hosts outside the cluster that tell whether this proxy is cut off.
    pub trusted_servers: Vec<String>,
    /// The key that authenticates peers, the contents of `key_file`.
    pub key: Secret,
    /// Where votes and intents are kept.
    pub state_directory: PathBuf,
    /// The others.
    pub peers: Vec<Peer>,
}

/// Programs that work on the address, or hear of leadership. A program and its arguments with pgpool-II's placeholders: `$_IP_$`, `$_IF_$`,
/// and `$_LIFETIME_$` (whole seconds) for the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchdogCommands {
    /// Puts the address on the interface; together with `if_down`.
    pub if_up: Option<String>,
    /// Takes it from there.
    pub if_down: Option<String>,
    /// Tells the neighbours.
    pub arping: Option<String>,
    /// Asks a trusted server; `%h` is which.
    pub trusted: Option<String>,
    /// This proxy leads.
    pub escalation: Option<String>,
    /// It leads no more.
    pub de_escalation: Option<String>,
    /// The longest run of each but `trusted`.
    pub timeout: Duration,
    /// They run in the configuration's folder.
    pub folder: PathBuf,
}

impl WatchdogCommands {
    /// Those that are set, by their parameters' names.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("if_up_cmd", &self.if_up),
            ("if_down_cmd", &self.if_down),
            ("arping_cmd", &self.arping),
            ("trusted_server_command", &self.trusted),
            ("escalation_command", &self.escalation),
            ("de_escalation_command", &self.de_escalation),
        ];
        all.into_iter().filter_map(|(name, command)| Some((name, command.as_deref()?)))
    }
}

impl Watchdog {
    /// The program of one of its commands, and its arguments.
    ///
    /// # Errors
    /// For people: it cannot be divided into words, or has a placeholder that has no value here.
    pub fn words(&self, name: &str, command: &str, lifetime: u64) -> Result<Vec<String>, String> {
        if name == "trusted_server_command" {
            return asking(command, "host");
        }
        let address = self.virtual_ip.map(|address| address.to_string());
        let interface = match &self.vip_on {
            VipOn::Interface(interface) => Some(interface.as_str()),
            VipOn::Tun => None,
        };
        let lifetime = (name == "if_up_cmd").then(|| lifetime.to_string());
        let values = [("IP", address.as_deref()), ("IF", interface), ("LIFETIME", lifetime.as_deref())];
        let values: Vec<(&str, &str)> = values.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        named(command, &values)
    }
}

/// The program that asks this trusted server, and its arguments.
///
/// # Errors
/// As [`Watchdog::words`].
pub fn asking(command: &str, server: &str) -> Result<Vec<String>, String> {
    lettered(command, &BTreeMap::from([('h', server.to_owned()), ('%', "%".to_owned())]))
}

/// `[[watchdog.peer]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// Its `watchdog.name`.
    pub name: String,
    /// Host name or address.
    pub host: String,
    /// Its `watchdog.port`.
    pub port: u16,
    /// It serves nobody and only votes: `pgherd witness`.
    pub witness: bool,
    /// `host:port` of each link for heartbeats; empty: `host` with our own heartbeat port.
    pub heartbeat: Vec<String>,
}

/// The least that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// And what looks wrong.
    Warn,
    /// And what happened.
    Info,
    /// And how.
    Debug,
    /// And each step.
    Trace,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// See [`LogLevel`].
    pub level: LogLevel,
    /// See [`LogFormat`].
    pub format: LogFormat,
    /// What is logged besides events.
    pub of: Logged,
    /// The share of statements that is logged, from 0 to 1.
    pub statement_sample: f64,
    /// Statements that take as long are logged in any case; zero: none.
    pub slow_statements: Duration,
    /// Literals are shown as `?`.
    pub hide_literals: bool,
    /// One statement in so many is timed.
    pub timed_every: u32,
}

/// What is logged besides events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logged {
    /// Each statement with its node.
    pub statements: bool,
    /// Each client that comes or goes.
    pub connections: bool,
}
