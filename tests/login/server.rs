//! pgherd logs in to a real server.

use pgherd::auth::scram::{LoginKeys, Verifier, derive};
use pgherd::auth::{Credentials, Md5Hash, Password};
use pgherd::backend::LoginFault;
use pgherd::net::{ClientTls, DialFault, SslMode};

use super::world::{Authority, ask, block_on, connect, plain, reload, server};

fn password(text: &str) -> Credentials {
    Credentials::Password(Password::new(text))
}

#[test]
fn r22_every_method_and_its_failures() {
    let Some(cluster) = server() else { return };
    let stored = cluster.primary().psql("postgres", "SELECT rolpassword FROM pg_authid WHERE rolname = 'u_scram'");
    let verifier = Verifier::parse(stored.expect("superuser").trim()).expect("PostgreSQL's own verifier");
    let keys = |text: &[u8]| {
        let keys = derive(text, &verifier.salt, verifier.iterations);
        Credentials::Scram(LoginKeys { salt: verifier.salt.clone(), iterations: verifier.iterations, keys })
    };
    let md5 = Credentials::Md5(Md5Hash::of_password(b"secret", "u_md5"));
    let good = password("secret");
    for (user, credentials, fault) in [
        ("u_trust", &Credentials::None, None),
        ("u_password", &good, None),
        ("u_md5", &good, None),
        ("u_md5", &md5, None),
        ("u_scram", &good, None),
        ("u_scram", &keys(b"secret"), None),
        ("u_scram", &keys(b"wrong"), Some((LoginFault::Refused, "28P01"))),
        ("u_scram", &password("wrong"), Some((LoginFault::Refused, "28P01"))),
        ("u_scram", &Credentials::None, Some((LoginFault::Credentials, "28000"))),
        ("u_scram", &md5, Some((LoginFault::Credentials, "28000"))),
        ("u_md5", &password("wrong"), Some((LoginFault::Refused, "28P01"))),
        ("u_password", &password("wrong"), Some((LoginFault::Refused, "28P01"))),
        ("nobody_here", &good, Some((LoginFault::Refused, "28P01"))),
        // Without TLS no rule is about u_tls but the last one, and its password is another.
        ("u_tls", &good, Some((LoginFault::Refused, "28P01"))),
    ] {
        block_on(async {
            match (connect(&cluster, "127.0.0.1", plain(), user, credentials).await, fault) {
                (Ok(mut login), None) => {
                    assert_eq!(login.cancel.secret.len(), 4);
                    assert!(login.parameters.iter().any(|(name, _)| name == "server_version"));
                    let sql = "SELECT current_user || ' ' || current_setting('application_name')";
                    assert_eq!(ask(&mut login.stream, sql).await, format!("{user} herd"));
                }
                (Err(error), Some((fault, sqlstate))) => {
                    assert_eq!((error.fault, error.sqlstate.as_str()), (fault, sqlstate), "{user}: {error}");
                }
                (outcome, _) => panic!("{user}: {outcome:?}"),
            }
        });
    }
}

#[test]
fn r22_tls_to_a_real_server() {
    let Some(cluster) = server() else { return };
    let primary = cluster.primary();
    // Before the server has TLS.
    block_on(async {
        let require = ClientTls::new(SslMode::Require, None).expect("settings");
        let error = connect(&cluster, "127.0.0.1", require, "u_trust", &Credentials::None).await.expect_err("no TLS");
        assert_eq!(error.fault, LoginFault::Dial(DialFault::Tls), "{error}");
        let prefer = ClientTls::new(SslMode::Prefer, None).expect("settings");
        let login = connect(&cluster, "127.0.0.1", prefer, "u_trust", &Credentials::None).await.expect("plain text");
        assert!(!login.stream.is_tls());
    });
    let authority = Authority::new(cluster.folder(), "ca");
    let _strangers = Authority::new(cluster.folder(), "other");
    let (certificate, key) = authority.sign("server", "server", &["localhost"]);
    cluster.owner().take(&certificate).expect("the server's own");
    cluster.owner().take(&key).expect("the server's own");
    for (name, value) in
        [("ssl_cert_file", certificate.display().to_string()), ("ssl_key_file", key.display().to_string())]
    {
        primary.psql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'")).expect("set");
    }
    primary.psql("postgres", "ALTER SYSTEM SET ssl = on").expect("set");
    reload(&cluster);
    let ca = cluster.folder().join("ca.pem");
    let other = cluster.folder().join("other.pem");
    for (mode, file, host, good) in [
        (SslMode::Prefer, None, "127.0.0.1", true),
        (SslMode::Require, None, "127.0.0.1", true),
        (SslMode::Require, Some(&other), "127.0.0.1", false),
        (SslMode::VerifyCa, Some(&ca), "127.0.0.1", true),
        (SslMode::VerifyCa, Some(&other), "localhost", false),
        (SslMode::VerifyFull, Some(&ca), "localhost", true),
        (SslMode::VerifyFull, Some(&ca), "127.0.0.1", false),
        (SslMode::VerifyFull, Some(&other), "localhost", false),
    ] {
        let tls = ClientTls::new(mode, file.map(|file| file.as_path())).expect("settings");
        block_on(async {
            // The password is not ASCII, and the exchange is bound to the channel: a wrong hash would be refused.
            match connect(&cluster, host, tls, "u_tls", &password("sécret")).await {
                Ok(mut login) if good => {
                    assert!(login.stream.channel_binding().is_some());
                    let sql = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
                    assert_eq!(ask(&mut login.stream, sql).await, "true");
                }
                Err(error) if !good => assert_eq!(error.fault, LoginFault::Dial(DialFault::Tls), "{error}"),
                outcome => panic!("{mode:?} {file:?} {host}: {outcome:?}"),
            }
        });
    }
}

#[test]
fn r22_a_server_that_is_down_or_full_is_told_apart() {
    let Some(cluster) = server() else { return };
    let primary = cluster.primary();
    let missing = block_on(connect(&cluster, "no-such-host.invalid", plain(), "u_trust", &Credentials::None));
    assert_eq!(missing.expect_err("no such name").fault, LoginFault::Dial(DialFault::Name));
    primary.psql("postgres", "ALTER ROLE u_trust CONNECTION LIMIT 0").expect("set");
    let full = block_on(connect(&cluster, "127.0.0.1", plain(), "u_trust", &Credentials::None)).expect_err("full");
    assert_eq!((full.fault, full.sqlstate.as_str()), (LoginFault::Busy, "53300"));
    primary.stop().expect("stopped");
    let down = block_on(connect(&cluster, "127.0.0.1", plain(), "u_trust", &Credentials::None)).expect_err("down");
    assert_eq!(down.fault, LoginFault::Dial(DialFault::Refused));
}
