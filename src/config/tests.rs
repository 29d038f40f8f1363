//! What the table promises about itself, and what a file may say.

use std::path::Path;
use std::time::Duration;

use super::words::Word;
use super::*;
use crate::cluster::NodeId;

const NODE: &str = "[[node]]\nid = 0\nhost = \"127.0.0.1\"\n";

fn parse(text: &str) -> Result<Settings, String> {
    Settings::parse(text, Path::new("/etc/pgherd/p.toml")).map_err(|error| error.to_string())
}

fn good(text: &str) -> Settings {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The words of each list in the table are those of the enum behind it.
#[test]
fn the_words_of_the_table_are_those_of_the_enums() {
    fn same<T: Word>(section: Section, name: &str) {
        let row = section.rows().find(|row| row.name == name).expect(name);
        let words: Vec<_> = T::WORDS.iter().map(|(word, _)| *word).collect();
        assert_eq!(row.kind, Kind::Choice(words.leak()), "{name}");
    }
    same::<PoolMode>(Section::Pool, "mode");
    same::<PoolMode>(Section::PoolRule, "mode");
    same::<OpaquePolicy>(Section::Pool, "opaque");
    same::<NodeRole>(Section::Node, "role");
    same::<SslMode>(Section::Node, "sslmode");
    same::<Consistency>(Section::Routing, "consistency");
    same::<Promote>(Section::Failover, "promote");
    same::<Fence>(Section::Failover, "fence");
    same::<OnSyncShortage>(Section::Failover, "on_sync_shortage");
    same::<OnQuorumLoss>(Section::Failover, "on_quorum_loss");
    same::<Arbiter>(Section::Watchdog, "arbiter");
    same::<LogLevel>(Section::Log, "level");
    same::<LogFormat>(Section::Log, "format");
    same::<PcpLayout>(Section::Pcp, "layout");
}

/// Every default and example fits its own row.
#[test]
fn every_default_and_example_fits_its_row() {
    for row in all() {
        let (Presence::Default(text) | Presence::Unset(text) | Presence::Required(text)) = row.presence;
        let value = toml::de::DeValue::parse(text).unwrap_or_else(|error| panic!("{}: {error}", row.key()));
        row.kind.check(value.get_ref()).unwrap_or_else(|misfit| panic!("{}: {}", row.key(), misfit.right));
        assert!(row.doc.ends_with('.') && !row.doc.contains('\n'), "{}", row.key());
        assert_eq!(all().iter().filter(|other| other.key() == row.key()).count(), 1, "{}", row.key());
    }
}

/// The least file gives the defaults that users are told of.
#[test]
fn the_least_file_gives_the_defaults() {
    let settings = good(NODE);
    assert_eq!(settings.listen.port, 9999);
    assert_eq!(settings.listen.max_clients, 10_000);
    assert_eq!(settings.pid_file, Path::new("/tmp/.s.PGHERD.9999.pid"));
    assert_eq!(settings.pool.mode, PoolMode::Transaction);
    assert_eq!((settings.pool.size, settings.pool.max_pinned), (20, None));
    assert_eq!(settings.pool.idle_timeout, Duration::from_secs(600));
    assert_eq!(settings.routing.consistency, Consistency::Session);
    let node = settings.node(NodeId(0)).expect("the node");
    assert_eq!((node.name.as_str(), node.port, node.weight, node.max_connections), ("node0", 5432, 1.0, 90));
    assert_eq!((node.sslmode, node.health_check), (SslMode::Prefer, settings.health_check));
    assert_eq!(settings.health_check.retry_delay, Duration::from_millis(300));
    assert!(settings.tls.is_none() && settings.web.is_none() && settings.watchdog.is_none());
}

/// Every parameter is read from the file under the name that the table gives it.
#[test]
fn every_parameter_of_the_table_can_be_said() {
    let mut text = sample();
    // All but secrets' files and what excludes something else, with the values of the sample.
    let keep = |line: &str| {
        let name = line.trim_start_matches('#').split(' ').next().unwrap_or_default();
        !["password_file", "key_file", "interface", "ca", "command", "first_stage_command"].contains(&name)
    };
    text = text.lines().filter(|line| keep(line)).map(|line| format!("{line}\n")).collect();
    let said: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with('[') || rest.split(' ').nth(1) == Some("=") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let error = parse(&said).expect_err("the key of the watchdog is missing");
    assert!(error.contains("lacks `key_file`") && error.matches("  = ").count() == 1, "{error}");
    let said = said.split("# Partner proxies").next().expect("a part").to_owned();
    let settings = good(&said);
    assert_eq!(settings.pid_file, Path::new("/run/pgherd/pgherd.pid"));
    assert_eq!(settings.tls.expect("tls").cert, Path::new("/etc/pgherd/server.crt"));
    assert_eq!(settings.pool.rules.len(), 1);
    assert_eq!(settings.failover.max_lag_on_failover, Some(16 << 20));
}

/// SESSIONS R21: the first rule that matches counts, and what it leaves open comes from [pool].
#[test]
fn r21_the_first_rule_that_matches_counts() {
    let text = format!(
        "{NODE}[pool]\nsize = 7\nmin_size = 6\n[[pool.rule]]\ndatabase = \"a\"\nuser = \"u\"\nsize = 3\n\
         [[pool.rule]]\nuser = \"u\"\nmode = \"session\"\nqueue_timeout = \"1s\"\n"
    );
    let pool = good(&text).pool;
    let limits = |database, user| pool.for_login(database, user);
    assert_eq!((limits("a", "u").size, limits("a", "u").min_size), (3, 3));
    assert_eq!(limits("a", "u").mode, PoolMode::Transaction);
    assert_eq!((limits("b", "u").size, limits("b", "u").mode), (7, PoolMode::Session));
    assert_eq!(limits("b", "u").queue_timeout, Duration::from_secs(1));
    assert_eq!((limits("a", "v").size, limits("a", "v").queue_timeout), (7, Duration::from_secs(10)));
}

#[test]
fn a_node_lays_its_own_checks_over_the_common_ones() {
    let text =
        format!("{NODE}[node.health_check]\ntimeout = \"5s\"\n[health_check]\nperiod = \"7s\"\ntimeout = \"2s\"\n");
    let settings = good(&text);
    let own = settings.nodes[0].health_check;
    assert_eq!((own.period, own.timeout), (Duration::from_secs(7), Duration::from_secs(5)));
    assert_eq!(settings.health_check.timeout, Duration::from_secs(2));
}

#[test]
fn redirects_name_a_pattern_a_target_and_a_share() {
    let text = format!(
        "{NODE}name = \"alpha\"\n[routing]\napp_name_redirect_list = [\"psql:primary\", \"a:b:standby(0.5)\"]\n\
         user_redirect_list = [\"u.*:alpha\", \"x:0(0)\"]\n"
    );
    let routing = good(&text).routing;
    let show = |redirect: &Redirect| (redirect.pattern.clone(), redirect.target, redirect.ratio);
    assert_eq!(show(&routing.app_name_redirect_list[0]), ("psql".to_owned(), RedirectTarget::Primary, 1.0));
    assert_eq!(show(&routing.app_name_redirect_list[1]), ("a:b".to_owned(), RedirectTarget::Standby, 0.5));
    assert_eq!(show(&routing.user_redirect_list[0]), ("u.*".to_owned(), RedirectTarget::Node(NodeId(0)), 1.0));
    assert_eq!(show(&routing.user_redirect_list[1]), ("x".to_owned(), RedirectTarget::Node(NodeId(0)), 0.0));
}

#[test]
fn a_diff_names_each_change_and_what_it_needs() {
    let old = good(&format!("{NODE}[[node]]\nid = 2\nhost = \"b\"\n[pool]\nidle_timeout = \"60s\"\n"));
    let new = good(&format!(
        "{NODE}weight = 2\n[[node]]\nid = 5\nhost = \"c\"\n[pool]\nidle_timeout = \"1min\"\nmode = \"session\"\n\
         [listen]\nport = 1\n[tls]\ncert = \"c\"\nkey = \"k\"\n"
    ));
    let show = |change: &Change| format!("{} {} {} {:?}", change.key, change.old, change.new, change.class);
    let changes: Vec<_> = Settings::diff(&old, &new).iter().map(show).collect();
    assert_eq!(
        changes,
        [
            "listen.port 9999 1 Restart",
            "node[0].weight 1 2 Live",
            "node[2] present unset Live",
            "node[5] unset present Live",
            "pool.mode \"transaction\" \"session\" NewSessions",
            "tls.cert unset \"c\" NewSessions",
            "tls.key unset \"k\" NewSessions",
        ]
    );
    assert!(Settings::diff(&old, &old).is_empty());
}

/// A section written without keys is the section left out.
#[test]
fn an_empty_section_is_no_change() {
    let text = format!(
        "[listen]\n[pool]\n[auth]\n[monitor]\n[routing]\n[health_check]\n[failover]\n[recovery]\n[pcp]\n[log]\n{NODE}"
    );
    assert_eq!(Settings::diff(&good(NODE), &good(&text)), []);
}

#[test]
fn secrets_are_read_from_private_files_only_and_never_shown() {
    use std::os::unix::fs::PermissionsExt;
    let folder = std::env::temp_dir().join(format!("pgherd-secret-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (file, config) = (folder.join("pw"), folder.join("p.toml"));
    std::fs::write(&file, "geheim\nsecond line\n").expect("written");
    let text = format!("{NODE}[monitor]\npassword_file = \"pw\"\n");
    let with_mode = |mode| {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("chmod");
        Settings::parse(&text, &config)
    };
    let open = with_mode(0o640).expect_err("readable by the group").to_string();
    assert!(open.contains(":5:17: ") && open.contains("mode 0640") && open.contains("chmod 600"), "{open}");
    let old = with_mode(0o600).expect("private");
    assert_eq!(old.monitor.password.as_ref().map(Secret::expose), Some("geheim"));
    assert!(!format!("{old:?}").contains("geheim"));
    std::fs::write(&file, "other\n").expect("written");
    let new = Settings::parse(&text, &config).expect("private");
    let changes = Settings::diff(&old, &new);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].key, "monitor.password_file");
    assert!(!format!("{changes:?}").contains("other"));
    std::fs::write(&file, "\n").expect("written");
    assert!(Settings::parse(&text, &config).expect_err("empty").to_string().contains("first line is empty"));
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn a_file_of_a_megabyte_or_none_at_all_is_refused() {
    let path = std::env::temp_dir().join(format!("pgherd-long-{}.toml", std::process::id()));
    std::fs::write(&path, format!("{NODE}{}", "#\n".repeat(600_000))).expect("written");
    assert!(Settings::load(&path).expect_err("too long").to_string().contains("longer than 1 MiB"));
    std::fs::write(&path, NODE).expect("written");
    assert_eq!(Settings::load(&path).expect("short").nodes.len(), 1);
    std::fs::remove_file(&path).expect("removed");
    assert!(Settings::load(&path).expect_err("gone").to_string().contains("No such file"));
}
