//! The rules against files as people write them, good and bad.

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Hba, HbaError> {
    Hba::parse(text, Path::new("/etc/hba"), &|file| match file.to_str() {
        Some("/etc/names") => Ok("alice, bob # two\n\"all\"\n@more\n".into()),
        Some("/etc/more") => Ok("carol".into()),
        Some("/etc/circle") => Ok("@circle".into()),
        Some("/etc/broken") => Ok("ok\n\"open".into()),
        _ => Err("no such file".into()),
    })
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().expect("an address"))
}

/// From 10.0.0.7 in plain text.
fn client<'a>(user: &'a str, database: &'a str) -> Client<'a> {
    Client { ip: ip("10.0.0.7"), tls: false, same_host: false, user, wanted: Wanted::Database(database) }
}

fn method(hba: &str, client: &Client<'_>) -> Option<Method> {
    parse(hba).expect("valid").decide(client).map(|rule| rule.method)
}

#[test]
fn r22_without_a_file_everyone_needs_scram() {
    let hba = Hba::default();
    let tcp = client("a", "b");
    for client in [
        tcp,
        Client { ip: None, ..tcp },
        Client { tls: true, ..tcp },
        Client { wanted: Wanted::Wal, ..tcp },
        Client { ip: ip("::1"), same_host: true, ..tcp },
    ] {
        assert_eq!(hba.decide(&client).map(|rule| rule.method), Some(Method::ScramSha256), "{client:?}");
    }
}

#[test]
fn r22_the_first_line_that_matches_counts() {
    let hba = "\
# TYPE  DATABASE        USER            ADDRESS                 METHOD
local   all             all                                     trust
host    all             mallory         0.0.0.0/0               reject
host    sales,shop      alice           10.0.0.0/8              md5
hostssl all             all             0.0.0.0/0               password
host    sameuser        all             10.0.0.0 255.255.255.0  scram-sha-256
";
    assert_eq!(method(hba, &client("mallory", "shop")), Some(Method::Reject));
    assert_eq!(method(hba, &client("alice", "shop")), Some(Method::Md5));
    assert_eq!(method(hba, &client("alice", "other")), None);
    assert_eq!(method(hba, &client("bob", "bob")), Some(Method::ScramSha256));
    assert_eq!(method(hba, &Client { tls: true, ..client("bob", "x") }), Some(Method::Password));
    assert_eq!(method(hba, &Client { ip: None, ..client("bob", "x") }), Some(Method::Trust));
    assert_eq!(method(hba, &Client { ip: ip("10.0.1.7"), ..client("bob", "bob") }), None);
    assert_eq!(parse(hba).expect("valid").rules()[4].line, 6);
}

#[test]
fn r22_addresses() {
    for (columns, address, inside) in [
        ("all", "192.0.2.1", true),
        ("0.0.0.0/0", "192.0.2.1", true),
        ("0.0.0.0/0", "::1", false),
        ("::/0", "2001:db8::1", true),
        ("::/0", "192.0.2.1", false),
        ("192.0.2.64/26", "192.0.2.127", true),
        ("192.0.2.64/26", "192.0.2.128", false),
        // Bits behind the mask do not matter.
        ("192.0.2.99/26", "192.0.2.127", true),
        ("192.0.2.1/32", "192.0.2.1", true),
        ("2001:db8::/33", "2001:db8:7fff::1", true),
        ("2001:db8::/33", "2001:db8:8000::1", false),
        ("192.0.2.0 255.255.255.0", "192.0.2.9", true),
        ("2001:db8:: ffff:ffff::", "2001:db8::9", true),
        ("127.0.0.1/32", "::ffff:127.0.0.1", true),
        ("samehost", "192.0.2.1", false),
    ] {
        let hba = format!("host all all {columns} trust");
        let found = method(&hba, &Client { ip: ip(address), ..client("a", "b") });
        assert_eq!(found.is_some(), inside, "{columns} {address}");
    }
    let here = Client { same_host: true, ..client("a", "b") };
    assert_eq!(method("host all all samehost trust", &here), Some(Method::Trust));
}

#[test]
fn r22_replication_is_not_all() {
    let physical = Client { wanted: Wanted::Wal, ..client("rep", "rep") };
    assert_eq!(method("host all all all trust", &physical), None);
    assert_eq!(method("host sameuser,rep all all trust", &physical), None);
    assert_eq!(method("host replication all all md5", &physical), Some(Method::Md5));
    assert_eq!(method("host replication all all md5", &client("a", "replication")), None);
    assert_eq!(method("host \"replication\" all all md5", &client("a", "replication")), Some(Method::Md5));
    assert_eq!(method("host \"replication\" all all md5", &physical), None);
}

#[test]
fn r22_quotes_take_the_meaning_from_words() {
    assert_eq!(method("host \"all\" all all trust", &client("a", "b")), None);
    assert_eq!(method("host \"all\" all all trust", &client("a", "all")), Some(Method::Trust));
    assert_eq!(method("host all \"+x\" all trust", &client("+x", "b")), Some(Method::Trust));
    assert_eq!(method("host all \"a b\"\"c,\" all trust", &client("a b\"c,", "d")), Some(Method::Trust));
    assert_eq!(
        method("host a, b ,c all all trust".replace(" ,", ",").as_str(), &client("x", "c")),
        Some(Method::Trust)
    );
    assert_eq!(method("host all \\\n  all all \\\n trust # end", &client("x", "c")), Some(Method::Trust));
}

#[test]
fn r22_lists_in_files() {
    for (user, good) in [("alice", true), ("bob", true), ("carol", true), ("all", true), ("two", false), ("dan", false)]
    {
        assert_eq!(method("host all @names all trust", &client(user, "x")).is_some(), good, "{user}");
    }
    for (name, told) in [
        ("@circle", "/etc/circle:1: more than 10 lists"),
        ("@broken", "/etc/broken:2: a quote"),
        ("@none", "/etc/hba:1: cannot read /etc/none"),
    ] {
        let error = parse(&format!("host all {name} all trust")).expect_err(name).to_string();
        assert!(error.starts_with(told), "{error}");
    }
}

#[test]
fn r22_what_is_not_supported_is_refused_with_its_line() {
    for (line, word) in [
        ("host all +admins all md5", "member"),
        ("host samerole all all md5", "member"),
        ("host all /^a all md5", "regular"),
        ("host /^a all all md5", "regular"),
        ("host all all example.org md5", "host names"),
        ("host all all .example.org md5", "host names"),
        ("host all all samenet md5", "samenet"),
        ("host all all all ldap ldapserver=x", "ldap"),
        ("local all all peer", "peer"),
        ("local all all peer map=x", "peer"),
        ("host all all all nonsense", "invalid authentication method"),
        ("include other.conf", "include"),
        ("hostx all all all md5", "connection type"),
        ("host,local all all all md5", "exactly one"),
        ("host all all all md5,trust", "exactly one"),
        ("host all all 1.2.3.4/33 md5", "CIDR"),
        ("host all all 1.2.3.4/+8 md5", "CIDR"),
        ("host all all 1.2.3.4/ md5", "CIDR"),
        ("host all all 1.2.3/8 md5", "IP address"),
        ("host all all 1.2.3.4 255.0.255.0 md5", "ones behind"),
        ("host all all 1.2.3.4 ffff:: md5", "do not match"),
        ("host all all 1.2.3.4 md5", "IP mask"),
        ("host all all all", "end of line before authentication method"),
        ("host all", "end of line before role"),
        ("host all all all md5 map=x", "map"),
        ("host all all all md5 clientcert=verify-ca", "hostssl"),
        ("host all all all cert", "hostssl"),
        ("hostssl all all all cert clientcert=verify-ca", "verify-full"),
        ("hostssl all all all md5 clientcert", "name=value"),
        ("host all, all all md5 \"", "not closed"),
        ("host all,", "behind the comma"),
        ("host ,all all all md5", "before the comma"),
    ] {
        let error = parse(&format!("# first\n{line}\n")).expect_err(line).to_string();
        assert!(error.starts_with("/etc/hba:2: ") && error.contains(word), "{line}: {error}");
    }
}

#[test]
fn r22_certificates() {
    for (line, expected) in [
        ("hostssl all all all cert", ClientCert::VerifyFull),
        ("hostssl all all all md5 clientcert=verify-ca", ClientCert::VerifyCa),
        ("hostssl all all all md5 clientcert=verify-full", ClientCert::VerifyFull),
        ("hostssl all all all md5", ClientCert::Any),
    ] {
        assert_eq!(parse(line).expect("valid").rules()[0].client_cert, expected, "{line}");
    }
}

proptest! {
    #[test]
    fn r22_no_file_panics(text in "(host(ssl)?|local|all|@names|[0-9./:,\"#+ \\\\\n\t]|md5|trust|\\PC){0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn r22_masks_agree_with_counting_bits(base: u128, other: u128, bits in 0u8..=128) {
        let hba = format!("host all all {}/{bits} trust", std::net::Ipv6Addr::from(base));
        let client = Client { ip: Some(std::net::Ipv6Addr::from(other).into()), ..client("a", "b") };
        let four = std::net::Ipv6Addr::from(other).to_ipv4_mapped().is_some();
        let inside = !four && (base ^ other).leading_zeros() >= u32::from(bits);
        prop_assert_eq!(method(&hba, &client).is_some(), inside);
    }
}
