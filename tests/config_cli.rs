//! The program's own commands about a file and a process, as a user runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pgherd-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn pgherd(args: &[&str], config: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    command.args(args).arg("--config").arg(config).output().expect("pgherd runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_refuses_a_bad_file_with_its_place() {
    let folder = Folder::new("bad");
    let config = folder.file("p.toml", "[[node]]\nid = 0\nhots = \"a\"\n");
    let output = pgherd(&["check"], &config);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("p.toml:3:1: unknown key `hots`") && said.contains("did you mean `host`?"), "{said}");
}

#[test]
fn h16_check_says_what_a_watchdog_guarantees_and_why_times_are_unsafe() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("watchdog");
    let key = folder.file("watchdog.key", "0123456789abcdef0123456789abcdef\n");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("set");
    let here = "name = \"a\"\naddress = \"127.0.0.1\"\nkey_file = \"watchdog.key\"\nstate_directory = \"state\"\n";
    let peer = "[[watchdog.peer]]\nname = \"b\"\nhost = \"127.0.0.2\"\n";
    let node = "[[node]]\nid = 0\nhost = \"127.0.0.1\"\nport = 1\n";
    let config = folder.file("p.toml", &format!("[watchdog]\n{here}{peer}{node}"));
    let output = pgherd(&["check", "--offline"], &config);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && said.contains("at most one of two proxies leads"), "{said}");
    assert!(said.contains("needs the locks of 1 of 1 servers"), "{said}");
    let config = folder.file("p.toml", &format!("[watchdog]\nlease = \"1s\"\n{here}{peer}{node}"));
    for arguments in [&["check", "--offline"][..], &["run"]] {
        let output = pgherd(arguments, &config);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(said.contains("lease = 1s is too short"), "{arguments:?}: {said}");
    }
    let config = folder.file("p.toml", &format!("[watchdog]\narbiter = \"witness\"\n{here}{peer}{node}"));
    let said = text(&pgherd(&["check", "--offline"], &config).stderr);
    assert!(said.contains("needs a third member"), "{said}");
}

#[test]
fn check_validates_the_programs_of_a_watchdog() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("programs");
    let key = folder.file("watchdog.key", "0123456789abcdef0123456789abcdef\n");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("set");
    let said = |own: &str| {
        let text = format!(
            "[watchdog]\nname = \"a\"\naddress = \"127.0.0.1\"\nkey_file = \"watchdog.key\"\nstate_directory = \"state\"\n{own}\n\
             [[watchdog.peer]]\nname = \"b\"\nhost = \"127.0.0.2\"\n[[node]]\nid = 0\nhost = \"127.0.0.1\"\nport = 1\n"
        );
        let output = pgherd(&["check", "--offline"], &folder.file("p.toml", &text));
        (output.status.success(), text_of(&output))
    };
    let (well, text) = said("trusted_servers = [\"a\"]\ntrusted_server_command = \"true -q %h\"");
    assert!(well && text.contains("watchdog.trusted_server_command") && text.contains("/true"), "{text}");
    let home = "virtual_ip = \"192.0.2.10\"\nvip_on = \"interface\"\ninterface = \"lo\"";
    let up = "if_up_cmd = \"true $_IP_$/24 $_IF_$ $_LIFETIME_$\"";
    let down = "if_down_cmd = \"true $_IP_$ $_IF_$\"";
    let (well, text) =
        said(&format!("{home}\n{up}\n{down}\narping_cmd = \"true $_IF_$\"\nescalation_command = \"true\""));
    assert!(well && text.contains("watchdog.if_up_cmd") && text.contains("/true"), "{text}");
    for (own, why) in [
        (format!("{home}\n{up}"), "`if_up_cmd` needs `if_down_cmd`"),
        (format!("{home}\n{down}"), "`if_down_cmd` needs `if_up_cmd`"),
        (format!("{home}\n{up}\nif_down_cmd = \"true $_LIFETIME_$\""), "no placeholder $_LIFETIME_$"),
        (format!("{home}\n{down}\nif_up_cmd = \"true $_MAC_$\""), "no placeholder $_MAC_$"),
        (format!("{home}\n{down}\nif_up_cmd = \"'true\""), "a quote does not end"),
        (
            "virtual_ip = \"192.0.2.10\"\nif_up_cmd = \"true\"\nif_down_cmd = \"true\"".to_owned(),
            "vip_on = \"interface\"",
        ),
        ("arping_cmd = \"true\"".to_owned(), "which is not set"),
        ("escalation_command = \"true $_IP_$\"".to_owned(), "no placeholder $_IP_$"),
        ("escalation_command = \"nowhere/hook.sh\"".to_owned(), "nowhere/hook.sh is not there"),
        ("trusted_server_command = \"true %h\"".to_owned(), "`trusted_servers`, which is empty"),
        ("trusted_servers = [\"a\"]\ntrusted_server_command = \"true %i\"".to_owned(), "no placeholder %i"),
        ("trusted_servers = [\"a\"]\ntrusted_server_command = \"no/ask.sh %h\"".to_owned(), "no/ask.sh is not there"),
        ("de_escalation_command = \"no-such-program-at-all\"".to_owned(), "is not there"),
    ] {
        let (well, text) = said(&own);
        assert!(!well && text.contains(why), "{own}: {why}: {text}");
    }
}

#[test]
fn s32_check_finds_hooks_that_cannot_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("hooks");
    let node = "[[node]]\nid = 0\nhost = \"127.0.0.1\"\nport = 1\n";
    for (name, mode) in [("runs.sh", 0o755), ("text.sh", 0o644)] {
        let path = folder.file(name, "#!/bin/sh\n");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
    }
    let said = |section: &str, line: &str| {
        let output = pgherd(&["check", "--offline"], &folder.file("p.toml", &format!("[{section}]\n{line}\n{node}")));
        (output.status.success(), text_of(&output))
    };
    for (section, name) in [
        ("failover", "failover_command"),
        ("failover", "follow_primary_command"),
        ("failover", "failback_command"),
        ("failover", "fence_command"),
        ("failover", "demote_command"),
        ("recovery", "command"),
    ] {
        for (line, why) in [
            ("./missing.sh %d %m", "./missing.sh is not there, or may not be run"),
            ("./text.sh %d", "./text.sh is not there, or may not be run"),
            ("no-such-program-at-all %d", "no-such-program-at-all is not there"),
            ("./runs.sh %x", "there is no placeholder %x"),
        ] {
            let (well, text) = said(section, &format!("{name} = \"{line}\""));
            let told = text.contains(&format!("{section}.{name}")) && text.contains(why);
            assert!(!well && told, "{name} = {line}: {text}");
        }
        for line in ["./runs.sh %d '%D' 100%%", "true %h", "%D/own.sh"] {
            let (well, text) = said(section, &format!("{name} = \"{line}\""));
            assert!(well && text.contains(&format!("{section}.{name}")), "{name} = {line}: {text}");
        }
    }
}

#[test]
fn h16_the_sample_files_of_proxies_that_watch_each_other_are_good() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("samples");
    let key = folder.file("watchdog.key", "0123456789abcdef0123456789abcdef\n");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("set");
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/watchdog");
    for (name, promise) in [
        ("pair.toml", "needs the locks of 2 of 3 servers"),
        ("witness.toml", "2 voters must reach each other"),
        ("three.toml", "at most one of 3 voters leads"),
    ] {
        let text = std::fs::read_to_string(samples.join(name)).expect("a sample");
        let config = folder.file(name, &text.replace("/etc/pgherd/watchdog.key", &key.display().to_string()));
        let output = pgherd(&["check", "--offline"], &config);
        let said = text_of(&output);
        assert!(output.status.success() && said.contains(promise), "{name}: {said}");
    }
}

fn text_of(output: &std::process::Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn check_tells_a_server_that_listens_from_one_that_does_not() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let open = listener.local_addr().expect("its address").port();
    // A port that was just free, and that nobody took since: its refusal is the fact to report.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
    let folder = Folder::new("servers");
    let node = |id, port| format!("[[node]]\nid = {id}\nhost = \"127.0.0.1\"\nport = {port}\nsslmode = \"disable\"\n");
    let config = folder.file("p.toml", &format!("{}{}", node(0, open), node(1, closed)));
    let output = pgherd(&["check", "--json"], &config);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(said["checks"][0]["place"], format!("127.0.0.1:{open}"));
    assert_eq!(said["checks"][1]["ok"], false);
    assert!(said["checks"][1]["text"].as_str().expect("a text").to_lowercase().contains("refused"), "{said}");
}

#[test]
fn check_offline_accepts_the_sample() {
    let folder = Folder::new("sample");
    let sample = Command::new(env!("CARGO_BIN_EXE_pgherd")).args(["check", "--print-sample"]).output().expect("runs");
    let config = folder.file("p.toml", &text(&sample.stdout));
    let output = pgherd(&["check", "--offline"], &config);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn s30_stop_and_reload_signal_nobody_when_nothing_runs() {
    let folder = Folder::new("stop");
    // The number of a process that is alive, left by one that is not.
    folder.file("pid", "1\n");
    let config = folder.file("p.toml", "pid_file = \"pid\"\n[[node]]\nid = 0\nhost = \"a\"\n");
    for command in ["stop", "reload"] {
        let output = pgherd(&[command], &config);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("is not running"), "{}", text(&output.stderr));
    }
}

#[test]
fn a_wrong_command_line_ends_with_two() {
    assert_eq!(pgherd(&["stop", "--mode", "gently"], Path::new("x")).status.code(), Some(2));
}
