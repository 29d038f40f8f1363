//! libpq logs in to pgherd's front door, and its ClientKey opens the real server.

use pgherd::app::demo::cluster::Cluster;
use pgherd::auth::Credentials;
use pgherd::net::ServerTls;

use super::world::{Authority, block_on, policy, server, through};

/// The line of the users file that holds the server's own verifier.
fn verifier(cluster: &Cluster, user: &str) -> String {
    let sql = format!("SELECT rolname || ':' || rolpassword FROM pg_authid WHERE rolname = '{user}'");
    cluster.primary().psql("postgres", &sql).expect("superuser").trim().to_owned()
}

const WHO: &str = "SELECT current_user";

#[test]
fn r22_the_clients_own_key_opens_the_server() {
    let Some(cluster) = server() else { return };
    let policy = policy("host all all all scram-sha-256", &verifier(&cluster, "u_scram"), None);
    block_on(async {
        let (psql, login) = through(&cluster, &policy, "user=u_scram password=secret", WHO).await;
        assert_eq!((psql.text().trim(), psql.complaint().as_str()), ("u_scram", ""));
        let login = login.expect("it came in");
        assert!(matches!(login.learned, Some(Credentials::Scram(_))), "nothing but the key was used");
        // The next login finds another nonce and the same key.
        let (psql, again) = through(&cluster, &policy, "user=u_scram password=secret", WHO).await;
        assert_eq!(psql.text().trim(), "u_scram");
        assert_eq!(again.expect("it came in").learned, login.learned);
        for (user, password) in [("u_scram", "wrong"), ("ghost", "secret")] {
            let (psql, login) = through(&cluster, &policy, &format!("user={user} password={password}"), WHO).await;
            assert!(login.is_none() && !psql.status.success());
            let told = psql.complaint();
            assert!(told.contains(&format!("password authentication failed for user \"{user}\"")), "{told}");
        }
    });
    // The server's password changed, the users file did not: the key does not fit any more, and the client hears why.
    cluster.primary().psql("postgres", "ALTER ROLE u_scram PASSWORD 'secret'").expect("changed");
    block_on(async {
        let (psql, _) = through(&cluster, &policy, "user=u_scram password=secret", WHO).await;
        assert!(!psql.status.success());
        assert!(psql.complaint().contains("verifier differs"), "{}", psql.complaint());
    });
}

#[test]
fn r22_every_method_with_libpq() {
    let Some(cluster) = server() else { return };
    let users = format!("{}\n{}\nu_password:TEXTsecret\n", verifier(&cluster, "u_scram"), verifier(&cluster, "u_md5"),);
    for (method, user, good) in [
        ("trust", "u_trust", true),
        ("password", "u_password", true),
        ("password", "u_md5", true),
        ("password", "u_scram", true),
        ("md5", "u_md5", true),
        ("md5", "u_scram", true),
        ("scram-sha-256", "u_scram", true),
        // An md5 hash cannot do SCRAM; the client only hears that the password is wrong.
        ("scram-sha-256", "u_md5", false),
        ("reject", "u_trust", false),
    ] {
        let policy = policy(&format!("host all all 127.0.0.1/32 {method}"), &users, None);
        block_on(async {
            let (psql, login) = through(&cluster, &policy, &format!("user={user} password=secret"), WHO).await;
            assert_eq!(psql.status.success(), good, "{method} {user}: {}", psql.complaint());
            if good {
                assert_eq!(psql.text().trim(), user);
            } else {
                assert!(login.is_none());
            }
        });
    }
}

#[test]
fn r22_tls_and_channel_binding_with_libpq() {
    let Some(cluster) = server() else { return };
    let authority = Authority::new(cluster.folder(), "ca");
    let strangers = Authority::new(cluster.folder(), "other");
    let (certificate, key) = authority.sign("door", "door", &["localhost"]);
    let ca = cluster.folder().join("ca.pem");
    let tls = || ServerTls::new(&certificate, &key, Some(&ca)).expect("settings");
    let root = format!("sslrootcert={}", ca.display());
    let show = |(certificate, key): (std::path::PathBuf, std::path::PathBuf)| {
        format!("sslcert={} sslkey={}", certificate.display(), key.display())
    };
    let own = show(authority.sign("alice", "u_trust", &[]));
    let wrong_name = show(authority.sign("bob", "bob", &[]));
    let foreign = show(strangers.sign("mallory", "u_trust", &[]));
    let scram = policy("hostssl all all all scram-sha-256", &verifier(&cluster, "u_scram"), Some(tls()));
    let cert = policy("hostssl all all all cert", "", Some(tls()));
    for (policy, conninfo, told) in [
        // libpq refuses to go on unless our side binds to the channel that OpenSSL sees.
        (&scram, format!("user=u_scram password=secret sslmode=verify-full {root} channel_binding=require"), ""),
        (&scram, format!("user=u_scram password=secret sslmode=verify-full {root} channel_binding=disable"), ""),
        (&scram, "user=u_scram password=secret sslmode=disable".to_owned(), "no pg_hba.conf entry"),
        (&cert, format!("user=u_trust sslmode=verify-full {root} {own}"), ""),
        (&cert, format!("user=u_trust sslmode=verify-full {root} {wrong_name}"), "certificate authentication failed"),
        (&cert, format!("user=u_trust sslmode=verify-full {root} {foreign}"), "alert"),
        (&cert, format!("user=u_trust sslmode=verify-full {root}"), "requires a valid client certificate"),
    ] {
        block_on(async {
            let (psql, login) = through(&cluster, policy, &conninfo, WHO).await;
            if told.is_empty() {
                assert!(psql.status.success(), "{conninfo}: {}", psql.complaint());
                assert!(login.expect("it came in").stream.is_tls());
            } else {
                assert!(login.is_none() && psql.complaint().contains(told), "{conninfo}: {}", psql.complaint());
            }
        });
    }
}
