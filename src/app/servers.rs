//! How servers are reached: addresses, TLS, credentials; opening pooled connections and sending cancels. Shared by all
//! threads. Must not know sessions.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use dashmap::DashMap;

use crate::auth::{Credentials, Password, Users};
use crate::backend::{
    Identity, KeyMaker, LoggedIn, LoginParams, OpenError, Opener, Permit, Registry, Server, SharedPool, connect,
};
use crate::cluster::{NodeId, Shared};
use crate::config::{self, Settings};
use crate::health::connection::{Account, Targets};
use crate::net::{ClientTls, DialTarget, Endpoint, Keepalive, Known, SocketOptions, SslMode, TlsError, dial};
use crate::support::clock::{Duration, now};
use crate::wire::{CancelKey, write};

/// Longest time from the dial to the end of a login.
const LOGIN: Duration = Duration::from_secs(5);
/// A server notices that this host has vanished, and frees what its sessions have locked, 2 s after it last heard of it (HA H15): a second
/// probe would make 3 s of it, which is all the time there is (SCENARIOS S40). Not by `tcp_user_timeout`: *tried*, it ends a connection
/// whose client does not read for as long; and no sooner than this.
const KEEPALIVES: [(&str, &str); 3] =
    [("tcp_keepalives_idle", "1"), ("tcp_keepalives_interval", "1"), ("tcp_keepalives_count", "1")];
/// Longest time that a CancelRequest may take.
const CANCEL: Duration = Duration::from_secs(5);

/// All servers.
pub(super) struct Servers {
    /// By node.
    pub(super) targets: Targets,
    /// The monitor role.
    pub(super) monitor: Arc<ArcSwap<Account>>,
    /// Secrets of the file of users.
    pub(super) users: ArcSwap<Users>,
    /// What clients' own logins taught, by user (SESSIONS R22); in memory only.
    learned: DashMap<Arc<str>, Credentials>,
    /// Derives keys on its own thread.
    pub(super) keys: Arc<KeyMaker>,
    /// Statements that one server connection may hold.
    pub(super) most_statements: AtomicU32,
    registry: Arc<Registry>,
    cluster: Arc<Shared>,
}

impl Servers {
    pub(super) fn new(
        settings: &Settings,
        users: Users,
        registry: Arc<Registry>,
        cluster: Arc<Shared>,
    ) -> Result<Self, TlsError> {
        Ok(Self {
            targets: Arc::new(ArcSwap::from_pointee(targets(settings)?)),
            monitor: Arc::new(ArcSwap::from_pointee(account(settings))),
            users: ArcSwap::from_pointee(users),
            learned: DashMap::new(),
            keys: Arc::new(KeyMaker::default()),
            most_statements: AtomicU32::new(settings.pool.max_prepared_statements),
            registry,
            cluster,
        })
    }

    /// A client's login taught something that servers may accept.
    pub(super) fn learn(&self, user: &str, credentials: Credentials) {
        self.learned.insert(user.into(), credentials);
    }

    /// What a user logs in to servers with.
    fn credentials(&self, user: &str) -> Credentials {
        let users = self.users.load();
        let stored = users.get(user).map(Credentials::from_stored);
        match (stored, self.learned.get(user)) {
            (Some(Credentials::Password(password)), _) => Credentials::Password(password),
            (_, Some(learned)) => learned.clone(),
            (Some(stored), None) => stored,
            (None, None) => Credentials::None,
        }
    }

    async fn log_in(&self, pool: &SharedPool) -> Result<LoggedIn, OpenError> {
        let key = &pool.key;
        let target = self.target(key.node)?;
        let options = KEEPALIVES.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let params = LoginParams { user: &key.user, database: &key.database, options: &options, replication: None };
        let credentials = self.credentials(&key.user);
        let begun = now();
        let done = connect(&target, &params, &credentials, &self.keys, begun + LOGIN).await;
        self.cluster.records.note(key.node, |record| match &done {
            Ok(_) => record.connects.observe(begun.elapsed()),
            Err(_) => record.connect_failures += 1,
        });
        done.map_err(|error| {
            tracing::warn!(node = key.node.0, user = %key.user, database = %key.database, %error, "cannot open a server connection");
            OpenError::from(error)
        })
    }

    fn target(&self, node: NodeId) -> Result<DialTarget, OpenError> {
        let targets = self.targets.load();
        targets.get(&node).cloned().ok_or_else(|| OpenError::Unreachable(format!("node {node} is not configured")))
    }

    async fn open(&self, pool: Arc<SharedPool>, permit: Permit) -> Result<Box<Server>, OpenError> {
        let logged_in = self.log_in(&pool).await?;
        let identity = Identity {
            id: self.registry.next_server(),
            node: pool.key.node,
            epoch: self.cluster.view().epoch,
            key: logged_in.cancel,
            opened: now(),
            permit,
        };
        let mut server =
            Server::new(logged_in.stream, identity, Rc::default(), self.most_statements.load(Ordering::Relaxed));
        server.status = logged_in.status;
        for (name, value) in &logged_in.parameters {
            server.report(name, value.as_bytes());
        }
        Ok(Box::new(server))
    }

    /// Logs a client that replicates in to a node, as what it asked for.
    pub(super) async fn replicate(
        &self,
        node: NodeId,
        params: &LoginParams<'_>,
    ) -> Result<LoggedIn, crate::backend::LoginError> {
        let target = self.target(node).map_err(|_| crate::backend::LoginError {
            sqlstate: "08001".to_owned(),
            message: format!("node {node} is not configured"),
            fault: crate::backend::LoginFault::Lost,
        })?;
        connect(&target, params, &self.credentials(params.user), &self.keys, now() + LOGIN).await
    }

    /// Sends a CancelRequest and waits until the server has closed the connection, so that it cannot hit a later statement.
    pub(super) async fn cancel(&self, node: NodeId, key: CancelKey) {
        let Ok(target) = self.target(node) else { return };
        let work = async {
            let mut stream = dial(&target).await.ok()?;
            let mut packet = Vec::new();
            write::cancel_request(&mut packet, key.pid, &key.secret);
            stream.write_all(&packet).await.ok()?;
            let mut rest = [0; 16];
            while stream.read(&mut rest).await.ok()? > 0 {}
            Some(())
        };
        if tokio::time::timeout(CANCEL, work).await.ok().flatten().is_none() {
            tracing::warn!(node = node.0, "a cancel request did not reach the server");
        }
    }
}

/// Opens connections for one thread's pools.
pub(super) fn opener(servers: Arc<Servers>, interner: Rc<crate::backend::Interner>) -> Opener {
    Box::new(move |pool, permit| {
        let (servers, interner, pool) = (servers.clone(), interner.clone(), pool.clone());
        Box::pin(async move {
            let mut server = servers.open(pool, permit).await?;
            server.adopt_interner(interner);
            Ok(server)
        })
    })
}

/// The monitor role.
pub(super) fn account(settings: &Settings) -> Account {
    let monitor = &settings.monitor;
    let credentials = match &monitor.password {
        Some(password) => Credentials::Password(Password::new(password.expose().as_bytes())),
        None => Credentials::None,
    };
    Account { user: monitor.user.clone(), database: monitor.database.clone(), credentials }
}

/// How each node is dialled.
pub(super) fn targets(settings: &Settings) -> Result<HashMap<NodeId, DialTarget>, TlsError> {
    settings.nodes.iter().map(|node| Ok((node.id, target(node)?))).collect()
}

/// Hands on what is known of names: a reload while no name can be resolved must not take servers away.
pub(super) fn remember(old: &HashMap<NodeId, DialTarget>, new: &mut HashMap<NodeId, DialTarget>) {
    for (id, target) in new {
        if let Some(before) = old.get(id).filter(|before| before.endpoint == target.endpoint) {
            target.known = before.known.clone();
        }
    }
}

/// Does any node that was there go, or is it reached in another way?
pub(super) fn moved(old: &HashMap<NodeId, DialTarget>, new: &HashMap<NodeId, DialTarget>) -> bool {
    let same = |(id, target): (&NodeId, &DialTarget)| new.get(id).is_some_and(|new| new.endpoint == target.endpoint);
    !old.iter().all(same)
}

fn target(node: &config::Node) -> Result<DialTarget, TlsError> {
    let mode = match node.sslmode {
        config::SslMode::Disable => SslMode::Disable,
        config::SslMode::Prefer => SslMode::Prefer,
        config::SslMode::Require => SslMode::Require,
        config::SslMode::VerifyCa => SslMode::VerifyCa,
        config::SslMode::VerifyFull => SslMode::VerifyFull,
    };
    Ok(DialTarget {
        endpoint: Endpoint::new(&node.host, node.port),
        timeout: LOGIN,
        tls: Arc::new(ClientTls::new(mode, node.ca.as_deref())?),
        options: SocketOptions {
            keepalive: Some(Keepalive { idle: Duration::from_secs(1), interval: Duration::from_secs(1), count: 2 }),
            // None: it would also end a connection whose server does not read for as long, because it waits for a lock in a COPY. Whoever
            // is dead is found by the health checks.
            user_timeout: None,
        },
        known: Known::default(),
    })
}
