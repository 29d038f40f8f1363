//! libpq connection strings, in both syntaxes: our marker appended and taken away, host and port replaced, everything else left as it
//! is (HA H5, H11). Pure; must not connect.

/// Appended to a recruited standby's `primary_conninfo`: nobody listens on port 1, and who reads it knows what happened.
const MARKER: &str = "application_name=pgherd_recruited_";

/// Is it a URI, or a list of `name = value`?
fn is_uri(text: &str) -> bool {
    text.starts_with("postgresql://") || text.starts_with("postgres://")
}

/// The value with our marker at its end; unchanged if it is there already.
pub fn mark(text: &str, epoch: u64) -> String {
    if is_marked(text) {
        return text.to_owned();
    }
    let (divider, joint) = match (is_uri(text), text.contains('?')) {
        (true, true) => ("&", "&"),
        (true, false) => ("?", "&"),
        (false, _) => (" ", " "),
    };
    format!("{text}{divider}port=1{joint}{MARKER}{epoch}")
}

/// Does it bear our marker?
pub fn is_marked(text: &str) -> bool {
    text.contains(MARKER)
}

/// The value without our marker: exactly what it was.
pub fn unmark(text: &str) -> String {
    let Some(at) = text.find(MARKER) else { return text.to_owned() };
    let before = &text[..at.saturating_sub(1)];
    let before = before.strip_suffix("port=1").unwrap_or(before);
    // One divider stands before it.
    let mut end = before.len();
    if before.ends_with(['?', '&', ' ']) {
        end -= 1;
    }
    before[..end].to_owned()
}

/// One `name = value` of the list syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair {
    name: String,
    value: String,
    /// Where it stands.
    span: std::ops::Range<usize>,
}

/// Reads the list syntax as libpq does; `None` if libpq would refuse it.
fn pairs(text: &str) -> Option<Vec<Pair>> {
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    let space = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_whitespace);
    while at < bytes.len() {
        if space(at) {
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len() && bytes[at] != b'=' && !space(at) {
            at += 1;
        }
        let name = text[start..at].to_owned();
        while space(at) {
            at += 1;
        }
        if bytes.get(at) != Some(&b'=') {
            return None;
        }
        at += 1;
        while space(at) {
            at += 1;
        }
        let (value, end) = value(bytes, at)?;
        at = end;
        found.push(Pair { name, value, span: start..at });
    }
    Some(found)
}

/// A value from `at`, and where it ends.
fn value(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let quoted = bytes.get(at) == Some(&b'\'');
    at += usize::from(quoted);
    let mut value = Vec::new();
    loop {
        match bytes.get(at) {
            None if quoted => return None,
            None => break,
            Some(b'\\') => {
                value.extend(bytes.get(at + 1));
                at += 1;
            }
            Some(b'\'') if quoted => {
                at += 1;
                break;
            }
            Some(byte) if !quoted && byte.is_ascii_whitespace() => break,
            Some(byte) => value.push(*byte),
        }
        at += 1;
    }
    Some((String::from_utf8(value).ok()?, at.min(bytes.len())))
}

/// Quotes a value for the list syntax where it needs it.
fn quote(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/%,*@".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The authority of a URI (what stands between the user and the path) and its place.
fn authority(text: &str) -> Option<std::ops::Range<usize>> {
    let start = text.find("://")? + 3;
    let end = text[start..].find(['/', '?']).map_or(text.len(), |at| start + at);
    let host = text[start..end].rfind('@').map_or(start, |at| start + at + 1);
    Some(host..end)
}

/// The query of a URI: names, values as written, in order.
fn query(text: &str) -> Vec<(&str, &str)> {
    let Some((_, query)) = text.split_once('?') else { return Vec::new() };
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect()
}

/// The same with host and port replaced; `hostaddr` goes, for it would win. `None` if it cannot be read.
pub fn redirect(text: &str, host: &str, port: u16) -> Option<String> {
    if !is_uri(text) {
        let mut rest = String::new();
        for pair in pairs(text)?.iter().filter(|pair| !matches!(pair.name.as_str(), "host" | "hostaddr" | "port")) {
            rest.push_str(&text[pair.span.clone()]);
            rest.push(' ');
        }
        return Some(format!("{rest}host={} port={port}", quote(host)));
    }
    let place = authority(text)?;
    let kept: Vec<String> = query(text)
        .into_iter()
        .filter(|(name, _)| !matches!(*name, "host" | "hostaddr" | "port"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let path_end = text.find('?').unwrap_or(text.len());
    let written = if host.contains(':') { format!("[{host}]") } else { host.replace('/', "%2F") };
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    Some(format!("{}{written}:{port}{}{query}", &text[..place.start], &text[place.end..path_end]))
}

/// The same under another `application_name`. `None` if it cannot be read.
pub fn rename(text: &str, name: &str) -> Option<String> {
    if !is_uri(text) {
        let mut rest = String::new();
        for pair in pairs(text)?.iter().filter(|pair| pair.name != "application_name") {
            rest.push_str(&text[pair.span.clone()]);
            rest.push(' ');
        }
        return Some(format!("{rest}application_name={}", quote(name)));
    }
    let escape = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    let mut kept: Vec<String> = query(text)
        .into_iter()
        .filter(|(name, _)| *name != "application_name")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    kept.push(format!("application_name={}", name.bytes().map(escape).collect::<String>()));
    let path = text.split('?').next().unwrap_or_default();
    Some(format!("{path}?{}", kept.join("&")))
}

/// Whom it points to: hosts (or addresses) and ports, one pair each.
pub fn targets(text: &str) -> Vec<(String, u16)> {
    let (mut hosts, mut ports): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let list = |value: &str| value.split(',').map(str::to_owned).collect::<Vec<_>>();
    if is_uri(text) {
        let authority = authority(text).map_or("", |place| &text[place]);
        for one in authority.split(',') {
            let (host, port) = match one.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => (host, port),
                _ => (one, ""),
            };
            hosts.push(host.trim_matches(['[', ']']).replace("%2F", "/"));
            ports.push(port.to_owned());
        }
        for (name, value) in query(text) {
            match name {
                "host" | "hostaddr" => hosts = list(value),
                "port" => ports = list(value),
                _ => {}
            }
        }
    } else {
        let mut address = None;
        for pair in pairs(text).unwrap_or_default() {
            match pair.name.as_str() {
                "host" => hosts = list(&pair.value),
                "hostaddr" => address = Some(list(&pair.value)),
                "port" => ports = list(&pair.value),
                _ => {}
            }
        }
        hosts = address.unwrap_or(hosts);
    }
    let port = |at: usize| ports.get(at).or(ports.first()).and_then(|port| port.parse().ok()).unwrap_or(5432);
    hosts.into_iter().enumerate().map(|(at, host)| (host, port(at))).collect()
}

/// Does it hold a password? Every reload would write it into the server's log (HA H5).
pub fn has_password(text: &str) -> bool {
    if !is_uri(text) {
        return pairs(text).unwrap_or_default().iter().any(|pair| pair.name == "password" && !pair.value.is_empty());
    }
    let start = text.find("://").map_or(0, |at| at + 3);
    let user = authority(text).map_or("", |place| &text[start..place.start]);
    user.contains(':') || query(text).iter().any(|(name, _)| *name == "password")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMS: [&str; 7] = [
        "",
        "host=10.0.0.1 port=5432 user=repl",
        "user = 'o\\'brien' host='a b' password='x\\'y'",
        "postgresql://repl@10.0.0.1:5433/db?sslmode=require&target_session_attrs=any",
        "postgres://10.0.0.1",
        "postgresql://[::1]:5434/?application_name=s1",
        "host=a,b port=1,2 hostaddr=1.1.1.1,2.2.2.2",
    ];

    #[test]
    fn h05_the_marker_goes_as_it_came() {
        for text in FORMS {
            let marked = mark(text, 7);
            assert!(is_marked(&marked) && marked.starts_with(text), "{marked}");
            assert_eq!(unmark(&marked), text);
            assert_eq!(mark(&marked, 8), marked, "once");
            assert_eq!(unmark(text), text);
        }
    }

    #[test]
    fn h11_only_host_and_port_are_replaced() {
        let to = |text| redirect(text, "10.0.0.9", 6000);
        assert_eq!(
            to("host=a user=repl sslmode='verify-full' port=1 hostaddr=1.1.1.1").as_deref(),
            Some("user=repl sslmode='verify-full' host=10.0.0.9 port=6000")
        );
        assert_eq!(
            to("postgresql://repl@10.0.0.1:5433/db?sslmode=require&port=1").as_deref(),
            Some("postgresql://repl@10.0.0.9:6000/db?sslmode=require")
        );
        assert_eq!(to("postgres://h").as_deref(), Some("postgres://10.0.0.9:6000"));
        assert_eq!(redirect("user=a", "/tmp/a b", 5).as_deref(), Some("user=a host='/tmp/a b' port=5"));
        assert_eq!(redirect("postgresql://h/db", "::1", 5).as_deref(), Some("postgresql://[::1]:5/db"));
        assert_eq!(redirect("what is this", "h", 5), None);
        assert_eq!(redirect("user='unended", "h", 5), None);
    }

    #[test]
    fn h11_only_the_name_is_replaced() {
        let to = |text| rename(text, "b 1");
        assert_eq!(to("host=a application_name=a user=r").as_deref(), Some("host=a user=r application_name='b 1'"));
        assert_eq!(to("").as_deref(), Some("application_name='b 1'"));
        assert_eq!(
            to("postgresql://[::1]/?application_name=a").as_deref(),
            Some("postgresql://[::1]/?application_name=b%201")
        );
        assert_eq!(to("postgres://r@h/d?a=b").as_deref(), Some("postgres://r@h/d?a=b&application_name=b%201"));
        assert_eq!(to("what is this"), None);
    }

    #[test]
    fn h11_where_it_points_to_is_read() {
        assert_eq!(targets("host=a user=b"), [("a".to_owned(), 5432)]);
        assert_eq!(targets("host=a,b port=1,2"), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert_eq!(targets("host=a hostaddr=1.1.1.1 port=7"), [("1.1.1.1".to_owned(), 7)]);
        assert_eq!(targets("postgresql://u@[::1]:5434/d"), [("::1".to_owned(), 5434)]);
        assert_eq!(targets("postgresql://u@h/d?port=9"), [("h".to_owned(), 9)]);
        for text in FORMS {
            let moved = redirect(text, "h", 77).expect("readable");
            assert_eq!(targets(&moved), [("h".to_owned(), 77)], "{moved}");
        }
    }

    #[test]
    fn h05_passwords_are_found() {
        assert_eq!(FORMS.map(has_password), [false, false, true, false, false, false, false]);
        assert!(has_password("postgresql://u:p@h/d") && has_password("postgresql://h?password=x"));
    }
}
