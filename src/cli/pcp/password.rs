//! The administrator's password: from `PCPPASSFILE` or `~/.pcppass`, as pgpool-II's programs have it, or asked for. Must not keep it.

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

/// The folder whose Unix socket is called `localhost` in the file.
const DEFAULT_FOLDER: &str = "/tmp";

/// The file with passwords, if there is one.
pub(super) fn file() -> Option<PathBuf> {
    let named: Option<OsString> = std::env::var_os("PCPPASSFILE").filter(|name| !name.is_empty());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".pcppass"));
    named.map(PathBuf::from).or_else(home).filter(|file| file.is_file())
}

/// The password for that login in the file.
///
/// # Errors
/// Others may read it, or it cannot be read.
pub(super) fn look_up(file: &Path, host: &str, port: u16, user: &str) -> Result<Option<String>, String> {
    let wrong = |reason: String| format!("{}: {reason}", file.display());
    let mode = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(wrong("others may read this file: it is ignored until its mode is 0600".to_owned()));
    }
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let host = if host == DEFAULT_FOLDER { "localhost" } else { host };
    Ok(text.lines().find_map(|line| entry(line, host, &port.to_string(), user)))
}

/// The password of a line that matches.
fn entry(line: &str, host: &str, port: &str, user: &str) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let fields = fields(line);
    let [own_host, own_port, own_user, password] = &fields[..] else { return None };
    let matches = |(field, quoted): &(String, bool), wanted: &str| field == wanted || (field == "*" && !quoted);
    (matches(own_host, host) && matches(own_port, port) && matches(own_user, user)).then(|| password.0.clone())
}

/// The fields, and whether a `\` stood in them. The last one keeps its colons.
fn fields(line: &str) -> Vec<(String, bool)> {
    let mut fields = vec![(String::new(), false)];
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        let last = fields.len() == 4;
        let Some(field) = fields.last_mut() else { break };
        match letter {
            '\\' => {
                field.0.extend(letters.next());
                field.1 = true;
            }
            ':' if !last => fields.push((String::new(), false)),
            letter => field.0.push(letter),
        }
    }
    fields
}

/// Asks at the terminal, without an echo.
///
/// # Errors
/// There is no terminal.
pub(super) fn ask(user: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("there is no terminal to ask for a password ({error}); use .pcppass");
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(failed)?;
    let before = tcgetattr(&terminal).map_err(|errno| failed(errno.into()))?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent).map_err(|errno| failed(errno.into()))?;
    let mut line = String::new();
    let asked = write!(&terminal, "Password for {user}: ")
        .and_then(|()| std::io::BufReader::new(&terminal).read_line(&mut line));
    // Whatever became of it, the terminal is as it was.
    let _ = tcsetattr(&terminal, SetArg::TCSAFLUSH, &before);
    let _ = writeln!(&terminal);
    asked.map_err(failed)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_matches_counts() {
        let file = std::env::temp_dir().join(format!("pgherd-pcppass-{}", std::process::id()));
        let text =
            "# hosts\nlocalhost:9898:a:one\n10.0.0.1:*:a:two:with:colons\n*:9898:b\\:c:thr\\\\ee\n\\*:*:*:never\n";
        std::fs::write(&file, text).expect("written");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("its own");
        let found = |host, port, user| look_up(&file, host, port, user).expect("readable");
        assert_eq!(found("localhost", 9898, "a").as_deref(), Some("one"));
        assert_eq!(found("/tmp", 9898, "a").as_deref(), Some("one"));
        assert_eq!(found("/run/pgherd", 9898, "a"), None);
        assert_eq!(found("10.0.0.1", 1, "a").as_deref(), Some("two:with:colons"));
        assert_eq!(found("any", 9898, "b:c").as_deref(), Some("thr\\ee"));
        assert_eq!(found("any", 9898, "d"), None);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).expect("its own");
        assert!(look_up(&file, "localhost", 9898, "a").expect_err("others read it").contains("0600"));
        std::fs::remove_file(&file).expect("removed");
    }
}
