//! The parameters, one row each. A table: nothing else may be added here.

use super::table::Kind::{Address, Bool, Choice, Duration, Float, Int, Path, Paths, Patterns, Redirects, Size};
use super::table::Kind::{Text, Texts, Words};
use super::table::Presence::{Default, Required, Unset};
use super::table::{Kind, Reload, Row, Section};

const PORT: Kind = Int(1, 65_535);
const MODES: Kind = Choice(&["transaction", "session", "statement"]);
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
const TERABYTES: Kind = Size(1 << 50);

macro_rules! rows {
    ($($section:ident { $($name:ident: $kind:expr, $presence:expr, $reload:ident, $pgpool:literal, $doc:literal;)* })*) => {
        pub(super) const ROWS: &[Row] = &[$($(Row {
            section: Section::$section, name: stringify!($name), kind: $kind, presence: $presence,
            reload: Reload::$reload, pgpool: $pgpool, doc: $doc,
        },)*)*];
    };
}

rows! {
    Root {
        pid_file: Path, Unset(r#""/run/pgherd/pgherd.pid""#), Restart, "pid_file_name",
            "Number of the running process, for `pgherd stop` and `pgherd reload`; unset: .s.PGHERD.<port>.pid in the first of unix_socket_directories, else in /tmp.";
    }
    Listen {
        addresses: Texts, Default(r#"["127.0.0.1"]"#), Restart, "listen_addresses",
            "TCP addresses or host names; \"*\" is every address of both families; empty: Unix sockets only.";
        port: PORT, Default("9999"), Restart, "port", "TCP port, and suffix of the Unix sockets.";
        unix_socket_directories: Paths, Default(r#"["/tmp"]"#), Restart, "unix_socket_directories socket_dir",
            "Folders that get a Unix socket .s.PGSQL.<port>.";
        max_clients: Int(1, 1_000_000), Default("10000"), Live, "num_init_children max_client_conn",
            "Clients at a time; one more is refused with 53300.";
        authentication_timeout: Duration(SECOND, HOUR), Default(r#""60s""#), Live, "authentication_timeout",
            "Time for a client from its connection to the end of its login.";
        threads: Int(0, 1_024), Default("0"), Restart, "", "Data threads; 0: one per core.";
        io_uring: Bool, Default("true"), Restart, "",
            "Short writes of a data thread go out together, where the kernel has io_uring; false: each by a system call.";
        backlog: Int(1, 65_535), Default("4096"), Restart, "listen_backlog_multiplier",
            "Connections that the kernel may keep waiting, per socket; a TCP address has one for each data thread.";
        client_idle_limit: Duration(0, 365 * DAY), Default(r#""0s""#), Live, "client_idle_limit",
            "A client silent for so long outside a transaction is disconnected; 0s: never.";
        stop_timeout: Duration(0, DAY), Default(r#""30s""#), Live, "",
            "How long an orderly stop waits for transactions to end.";
    }
    Pool {
        mode: MODES, Default(r#""transaction""#), NewSessions, "pool_mode",
            "When a server connection goes back to its pool: at the end of each transaction, session or statement.";
        size: Int(1, 100_000), Default("20"), Live, "max_pool default_pool_size",
            "Server connections per node, database and user.";
        min_size: Int(0, 100_000), Default("0"), NewSessions, "min_pool_size",
            "Of these, kept open even when idle; needs a password in auth.users_file.";
        queue_timeout: Duration(1, DAY), Default(r#""10s""#), NewSessions, "query_wait_timeout",
            "Longest wait for a server connection; then the statement is refused with 53300.";
        idle_timeout: Duration(0, 365 * DAY), Default(r#""10min""#), Live, "child_life_time server_idle_timeout",
            "An idle server connection beyond min_size is closed after this; 0s: never.";
        max_lifetime: Duration(0, 365 * DAY), Default(r#""1h""#), Live, "connection_life_time server_lifetime",
            "A server connection is replaced after this, once it is idle; 0s: never.";
        max_pinned: Int(0, 100_000), Unset("10"), Live, "",
            "Sessions per pool that may keep a server connection for themselves; unset: half of size.";
        max_prepared_statements: Int(0, 100_000), Default("200"), Live, "max_prepared_statements",
            "Prepared statements kept on one server connection; the least used goes first.";
        opaque: Choice(&["clean", "pin"]), Default(r#""clean""#), NewSessions, "",
            "Settings made inside functions: forgotten with the transaction (clean), or kept by keeping the server connection (pin).";
    }
    PoolRule {
        database: Text, Unset(r#""app""#), Live, "", "Only this database; unset: all.";
        user: Text, Unset(r#""batch""#), Live, "", "Only this user; unset: all.";
        mode: MODES, Unset(r#""session""#), NewSessions, "", "Instead of pool.mode.";
        size: Int(1, 100_000), Unset("5"), Live, "", "Instead of pool.size.";
        min_size: Int(0, 100_000), Unset("1"), NewSessions, "", "Instead of pool.min_size.";
        queue_timeout: Duration(1, DAY), Unset(r#""1min""#), NewSessions, "", "Instead of pool.queue_timeout.";
    }
    Auth {
        hba_file: Path, Unset(r#""hba.conf""#), NewSessions, "enable_pool_hba",
            "Rules in the form of pg_hba.conf; unset: scram-sha-256 for everyone.";
        users_file: Path, Unset(r#""users.txt""#), NewSessions, "pool_passwd auth_file",
            "Users with their passwords or verifiers, in the form of pool_passwd; should not be readable by others.";
        admin_users: Texts, Default("[]"), Live, "admin_users",
            "Who may see the sessions of others in full; superusers and the monitor role may in any case.";
        stats_users: Texts, Default(r#"["*"]"#), Live, "stats_users",
            "Who may use SHOW POOL_… and PGPOOL SHOW at all, besides those; \"*\" is everyone.";
    }
    Tls {
        cert: Path, Required(r#""server.crt""#), NewSessions, "ssl_cert", "Certificate chain, PEM.";
        key: Path, Required(r#""server.key""#), NewSessions, "ssl_key ssl", "Its private key, PEM.";
        client_ca: Path, Unset(r#""clients.crt""#), NewSessions, "ssl_ca_cert",
            "Whoever signs the certificates of clients, PEM.";
    }
    Monitor {
        user: Text, Default(r#""pgherd""#), Live, "sr_check_user health_check_user", "Its name; a member of pg_monitor.";
        password_file: Path, Unset(r#""monitor.password""#), Live, "sr_check_password health_check_password",
            "The first line of this file is its password; must not be readable by others.";
        database: Text, Default(r#""postgres""#), Live, "sr_check_database health_check_database",
            "The database that it connects to.";
    }
    Node {
        id: Int(0, 127), Required("0"), Live, "", "Its number; keep it when others come or go.";
        name: Text, Unset(r#""alpha""#), Live, "", "For people; unset: node<id>.";
        host: Text, Required(r#""127.0.0.1""#), Live, "backend_hostname",
            "Host name or address; a path is the folder of a Unix socket.";
        port: PORT, Default("5432"), Live, "backend_port", "Its port.";
        weight: Float(0.0, 1e8), Default("1.0"), Live, "backend_weight",
            "Share of the reads, relative to the other servers; 0: none.";
        max_connections: Int(1, 1_000_000), Default("90"), Live, "",
            "Server connections over all pools; keep it below the server's own max_connections.";
        role: Choice(&["auto", "primary", "standby"]), Default(r#""auto""#), Live, "",
            "auto: whatever the server says; primary: no other is; standby: never a primary, and beside a fixed primary read from even as a server of its own.";
        sslmode: Choice(&["disable", "prefer", "require", "verify-ca", "verify-full"]), Default(r#""prefer""#), Live, "",
            "As in libpq.";
        ca: Path, Unset(r#""servers.crt""#), Live, "", "Whoever signs the server's certificate, PEM; for verify-ca and verify-full.";
        application_name: Text, Unset(r#""alpha""#), Live, "backend_application_name",
            "What it calls itself when it streams as a standby, different from all others; unset: its name.";
        replication_host: Text, Unset(r#""10.0.0.1""#), Live, "", "Where other servers reach it, as their primary_conninfo has it; unset: host.";
        replication_port: PORT, Unset("5432"), Live, "", "Where other servers reach it; unset: port.";
        data_directory: Text, Unset(r#""/var/lib/postgresql/15/main""#), Live, "backend_data_directory",
            "Its data directory on its own host, for scripts.";
        flags: Words(&["ALLOW_TO_FAILOVER", "DISALLOW_TO_FAILOVER", "ALWAYS_PRIMARY"]), Default("[]"), Live, "backend_flag",
            "DISALLOW_TO_FAILOVER: never detached nor promoted; ALWAYS_PRIMARY: the primary, whatever happens.";
    }
    Routing {
        load_balance: Bool, Default("true"), NewSessions, "load_balance_mode", "false: everything goes to the primary.";
        statement_level: Bool, Default("false"), NewSessions, "statement_level_load_balance",
            "Choose a server for each statement, not for each session.";
        consistency: Choice(&["session", "proxy", "eventual"]), Default(r#""session""#), NewSessions, "disable_load_balance_on_write",
            "What a read must see: what its session wrote, what any client of this proxy wrote, or whatever the standby has.";
        delay_threshold: TERABYTES, Default(r#""0B""#), Live, "delay_threshold",
            "A standby that is further behind gets no reads; 0B: however far.";
        delay_threshold_by_time: Duration(0, DAY), Default(r#""0s""#), Live, "delay_threshold_by_time",
            "The same by the age of what it replayed last, as long as it has not replayed all that it received; 0s: however old.";
        prefer_lower_delay_standby: Bool, Default("true"), Live, "prefer_lower_delay_standby",
            "Reads whose standby is too far behind go to the least delayed other one; false: to the primary.";
        primary_routing_query_pattern_list: Patterns, Default("[]"), Live,
            "primary_routing_query_pattern_list black_query_pattern_list", "Reads that match one of these go to the primary.";
        app_name_redirect_list: Redirects, Default("[]"), NewSessions, "app_name_redirect_preference_list",
            "\"pattern:target\" or \"pattern:target(share)\" by application_name; target: primary, standby, or a server's id or name.";
        database_redirect_list: Redirects, Default("[]"), NewSessions, "database_redirect_preference_list", "The same by database.";
        user_redirect_list: Redirects, Default("[]"), NewSessions, "user_redirect_preference_list", "The same by user.";
        read_only_functions: Patterns, Default("[]"), Live, "read_only_function_list white_function_list",
            "Functions that only read; whole names.";
        write_functions: Patterns, Default("[]"), Live, "write_function_list black_function_list", "Functions that write; whole names.";
    }
    HealthCheck {
        period: Duration(100, HOUR), Default(r#""1s""#), Live, "health_check_period sr_check_period",
            "From check to check, at the most: each comes by chance up to 10 % earlier.";
        timeout: Duration(10, HOUR), Default(r#""1s""#), Live, "health_check_timeout connect_timeout", "For one whole check.";
        max_retries: Int(0, 1_000), Default("2"), Live, "health_check_max_retries", "Failures after the first that are forgiven.";
        retry_delay: Duration(0, HOUR), Default(r#""300ms""#), Live, "health_check_retry_delay", "Pause before a retry.";
        successes: Int(1, 1_000), Default("1"), Live, "", "Checks in a row that bring a dead server back.";
    }
    Failover {
        promote: Choice(&["never", "builtin", "command"]), Default(r#""never""#), Live, "",
            "never: a dead primary is only detached; builtin: pgherd promotes a standby; command: failover_command does.";
        hold_timeout: Duration(0, HOUR), Default(r#""30s""#), Live, "search_primary_node_timeout",
            "How long statements that need a primary wait for a new one.";
        max_held: Int(0, 1_000_000), Default("10000"), Live, "", "How many of them wait; the next is refused at once.";
        max_held_memory: TERABYTES, Default(r#""256MB""#), Live, "", "How much memory they take together; the next is refused at once.";
        max_lag_on_failover: TERABYTES, Unset(r#""16MB""#), Live, "", "A standby that lacks more is not promoted; unset: any may be.";
        fence: Choice(&["required", "best_effort"]), Default(r#""required""#), Live, "",
            "Whether a failing fence_command stops the failover.";
        allow_data_loss: Bool, Default("false"), Live, "", "Promote even if commits that were acknowledged may be lost.";
        on_sync_shortage: Choice(&["wait", "relax"]), Default(r#""wait""#), Live, "",
            "When the new primary has too few synchronous standbys: wait for them, or empty its synchronous_standby_names, for good.";
        on_quorum_loss: Choice(&["stop", "hold_course"]), Default(r#""stop""#), Live, "failover_when_quorum_exists",
            "When this proxy lost the majority of its voters: stop writing, or go on with the primary that it knows.";
        auto_failback: Bool, Default("false"), Live, "auto_failback", "Attach a standby again once it streams from the primary.";
        auto_failback_interval: Duration(0, DAY), Default(r#""1min""#), Live, "auto_failback_interval", "Shortest time between two such returns of one server.";
        failover_command: Text, Unset(r#""hooks/failover.sh %d %h %p %D %m %H %r %R %P""#), Live, "failover_command",
            "Run when a server is detached; with promote = \"command\" it promotes. Run without a shell; placeholders as in pgpool-II.";
        follow_primary_command: Text, Unset(r#""hooks/follow.sh %d %h %p %D %H %r""#), Live,
            "follow_primary_command follow_master_command", "Run for each other standby after a promotion.";
        failback_command: Text, Unset(r#""logger -t pgherd server %d at %h is back""#), Live, "failback_command", "Run when a server is attached.";
        fence_command: Text, Unset(r#""hooks/fence.sh %d %h %p %D""#), Live, "", "Run before a promotion, to cut the old primary off.";
        demote_command: Text, Unset(r#""hooks/demote.sh %d %h %p %D""#), Live, "", "Stops the old primary cleanly in a switch-over; unset: pgpool-II's extension does, if [recovery] uses it.";
        command_timeout: Duration(SECOND, DAY), Default(r#""1min""#), Live, "", "Longest run of one of these commands, which are told by PGHERD_TIMEOUT.";
        state_directory: Path, Unset(r#""/var/lib/pgherd""#), Restart, "work_dir logdir",
            "What must survive this process: epoch, nodes taken out, a failover under way; unset: pgherd.state beside this file.";
    }
    Recovery {
        user: Text, Unset(r#""postgres""#), Live, "recovery_user", "Role that may call the extension: a superuser; unset: the monitor role.";
        password_file: Path, Unset(r#""recovery.password""#), Live, "recovery_password",
            "The first line of this file is its password; must not be readable by others.";
        database: Text, Default(r#""postgres""#), Live, "recovery_database", "The database that it connects to.";
        first_stage_command: Text, Unset(r#""recovery_1st_stage""#), Live, "recovery_1st_stage_command",
            "Script in the primary's data directory, run by pgpool-II's extension; pgpool_remote_start then starts the server.";
        command: Text, Unset(r#""hooks/recover.sh %d %h %p %D %H %r""#), Live, "",
            "A program on this host instead of the extension: copies and starts. Placeholders as in failover_command.";
        copy_timeout: Duration(SECOND, 30 * DAY), Default(r#""1d""#), Live, "", "Longest run of the script or program that copies.";
        timeout: Duration(SECOND, 7 * DAY), Default(r#""90s""#), Live, "recovery_timeout",
            "From then on until the server streams from the primary.";
    }
    Pcp {
        addresses: Texts, Default(r#"["127.0.0.1"]"#), Restart, "pcp_listen_addresses", "TCP addresses or host names.";
        port: PORT, Default("9898"), Restart, "pcp_port", "TCP port, and suffix of the Unix sockets.";
        unix_socket_directories: Paths, Default("[]"), Restart, "pcp_socket_dir", "Folders that get a Unix socket .s.PGSQL.<port>.";
        users_file: Path, Unset(r#""pcp.conf""#), Live, "", "Administrators, in the form of pcp.conf.";
        layout: Choice(&["4.3", "4.4", "4.5", "4.7"]), Default(r#""4.3""#), Live, "",
            "The pgpool-II whose pcp_* programs are answered: they differ in their fields and cannot tell their version.";
    }
    Web {
        address: Text, Default(r#""127.0.0.1""#), Restart, "", "TCP address.";
        port: PORT, Default("9899"), Restart, "", "TCP port.";
    }
    Watchdog {
        name: Text, Required(r#""proxy-a""#), Restart, "hostname", "This proxy, as its peers call it.";
        address: Text, Required(r#""192.0.2.1""#), Restart, "wd_listen_address wd_hostname", "Where it listens for peers.";
        port: PORT, Default("9000"), Restart, "wd_port wd_listen_port", "TCP port for peers.";
        heartbeat_port: PORT, Default("9694"), Restart, "heartbeat_port wd_heartbeat_port", "UDP port for heartbeats.";
        priority: Int(-1_000_000, 1_000_000), Default("1"), Live, "wd_priority", "Of equals, the highest leads.";
        virtual_ip: Address, Unset(r#""192.0.2.10""#), Restart, "delegate_ip delegate_IP", "The address that follows the leader.";
        vip_on: Choice(&["tun", "interface"]), Default(r#""tun""#), Restart, "",
            "Where the address lives: a TUN device that dies with the process, or the named interface.";
        interface: Text, Unset(r#""eth0""#), Restart, "", "For vip_on = \"interface\".";
        if_up_cmd: Text, Unset(r#""/sbin/ip addr replace $_IP_$/24 dev $_IF_$ valid_lft $_LIFETIME_$ preferred_lft $_LIFETIME_$""#), Live,
            "if_up_cmd", "Puts the address on the interface, instead of pgherd's own way; with if_down_cmd. Run without a shell.";
        if_down_cmd: Text, Unset(r#""/sbin/ip addr del $_IP_$/24 dev $_IF_$""#), Live, "if_down_cmd",
            "Takes it from there. Whatever it does, pgherd looks behind it that the address is gone.";
        arping_cmd: Text, Unset(r#""/usr/bin/arping -U $_IP_$ -w 1 -I $_IF_$""#), Live, "arping_cmd",
            "Tells the neighbours where the address is, instead of pgherd's own way.";
        escalation_command: Text, Unset(r#""hooks/leads.sh""#), Live, "wd_escalation_command",
            "Run when this proxy begins to lead. Nothing depends on it.";
        de_escalation_command: Text, Unset(r#""hooks/leads_no_more.sh""#), Live, "wd_de_escalation_command",
            "Run when it leads no more, while it lives.";
        command_timeout: Duration(100, HOUR), Default(r#""2s""#), Live, "",
            "Longest run of each of these five; of the first three never beyond the lease.";
        monitoring_interfaces_list: Texts, Default("[]"), Restart, "wd_monitoring_interfaces_list",
            "Interfaces that clients come by; with no carrier on any of them leadership is handed over. Always: interface.";
        lease: Duration(SECOND, HOUR), Default(r#""3s""#), Restart, "wd_heartbeat_deadtime wd_interval",
            "How long leadership lasts without renewal; the same on all proxies.";
        arbiter: Choice(&["nodes", "witness", "trusted"]), Default(r#""nodes""#), Restart, "",
            "The third vote of a pair: a majority of the servers, a third pgherd, or (weaker) hosts that answer a ping.";
        trusted_servers: Texts, Default("[]"), Live, "trusted_servers", "Hosts that tell whether this proxy is cut off: by ICMP, or \"host:port\" by TCP.";
        trusted_server_command: Text, Unset(r#""ping -q -c 1 -W 1 %h""#), Live, "trusted_server_command",
            "Asks one of them (%h), which answers if it ends well; instead of pgherd's own echo. It has a fifth of the lease, 1 s at most.";
        key_file: Path, Required(r#""watchdog.key""#), Restart, "wd_authkey",
            "The key that all proxies share; must not be readable by others.";
        state_directory: Path, Required(r#""/var/lib/pgherd""#), Restart, "work_dir logdir", "Where votes and intents are kept.";
    }
    WatchdogPeer {
        name: Text, Required(r#""proxy-b""#), Restart, "", "Its watchdog.name.";
        host: Text, Required(r#""192.0.2.2""#), Restart, "other_pgpool_hostname", "Host name or address.";
        port: PORT, Default("9000"), Restart, "other_wd_port", "Its watchdog.port.";
        witness: Bool, Default("false"), Restart, "", "It serves nobody and only votes: it is run by `pgherd witness`.";
        heartbeat: Texts, Default("[]"), Restart, "heartbeat_hostname heartbeat_destination",
            "\"host:port\" of each link for heartbeats; empty: host with heartbeat_port.";
    }
    Log {
        level: Choice(&["error", "warn", "info", "debug", "trace"]), Default(r#""info""#), Live, "log_min_messages", "The least that is logged.";
        format: Choice(&["text", "json"]), Default(r#""text""#), Restart, "log_destination log_line_prefix", "For people, or one JSON object per line.";
        statements: Bool, Default("false"), Live, "log_statement log_per_node_statement",
            "Log each statement with its server, its times and the reason why it went there.";
        statement_sample: Float(0.0, 1.0), Default("1.0"), Live, "", "That share of them.";
        slow_statements: Duration(0, DAY), Default(r#""0s""#), Live, "",
            "Log statements that take as long, whatever the others say; 0s: none.";
        hide_literals: Bool, Default("false"), Live, "", "Show literals in logged statements as ?.";
        timed_every: Int(1, 1_000_000), Default("16"), Live, "",
            "One statement in so many is timed and stands for the others in histograms; each of them while statements are logged.";
        connections: Bool, Default("false"), Live, "log_connections log_disconnections", "Log each client that comes or goes.";
    }
}
