//! The first words to a client: the parameters that a real login reported for its database, user and startup options
//! (SESSIONS R6), its cancel key, and that it may begin.

use std::rc::Rc;

use crate::backend::Reported;
use crate::cluster::Writes;
use crate::sql::Isolation;
use crate::support::clock::{Duration, now};
use crate::wire::{TxStatus, write};

use super::context::{Greeting, GreetingKey, Who};
use super::lease::{ASK, NoLease};
use super::local::Refusal;
use super::shown::Doing;
use super::survey::Survey;
use super::{Context, End, Session};

/// How long a greeting is good.
const FRESH: Duration = Duration::from_secs(60);
/// A login waits no longer for a new greeting where it has an old one: a primary that has just frozen answers to nobody, and nobody knows yet.
const REFRESH: Duration = Duration::from_millis(250);
/// A login waits no longer for the greeting that another one asks for before it asks by itself.
const SHARED: Duration = Duration::from_secs(2);
/// Before a new greeting is asked for again where one is under way, or did not come.
const REST: Duration = Duration::from_secs(5);
/// Greetings that a thread keeps.
const MOST: usize = 1_000;

/// Bytes of a greeting, so that it is not moved about while it grows.
const USUAL: usize = 640;

/// Why a primary did not say how it greets.
enum Unasked {
    /// It was lost meanwhile.
    Lost,
    /// The session cannot begin.
    End(End),
}

impl Session {
    /// Greets the client, in one write with `accepted`. The first of its kind on this thread waits for a real server, like a write.
    pub(super) async fn greet(&mut self, secret: &[u8], accepted: Vec<u8>) -> Result<(), End> {
        let key = (self.who.database.clone(), self.who.user.clone(), self.digest);
        let known = self.context.greeting_of(&key).await;
        let asking = known.is_none().then(|| Asking::begin(&self.context, &key));
        let writes = self.context.global.cluster.view().writes;
        let greeting = match known {
            // Without a primary nobody can be asked, and an old answer is better than none.
            Some(greeting) if now() < greeting.good_until || writes != Writes::Open => greeting,
            known => match (self.renew(&key, known.is_some()).await, known) {
                (Ok(greeting), _) => {
                    let mut all = self.context.greetings.borrow_mut();
                    if all.len() >= MOST {
                        all.clear();
                    }
                    all.insert(key, greeting.clone());
                    greeting
                }
                (Err(Unasked::Lost), Some(old)) => old,
                (Err(Unasked::Lost), None) => {
                    let text = "the primary was lost during the login";
                    return Err(End::Fatal(Refusal::new(crate::wire::sqlstate::CANNOT_CONNECT_NOW, text)));
                }
                (Err(Unasked::End(end)), _) => return Err(end),
            },
        };
        drop(asking);
        self.set_told(self.with_application_name(greeting.reported));
        self.client.output = accepted;
        self.client.output.reserve(USUAL);
        for (name, value) in self.told.iter() {
            write::frame(&mut self.client.output, b'S', |out| {
                write::cstr(out, name.as_bytes());
                write::cstr(out, value);
            });
        }
        write::parameter_status(&mut self.client.output, "in_hot_standby", "off");
        write::key_data(&mut self.client.output, self.id, secret);
        write::ready(&mut self.client.output, TxStatus::Idle);
        self.context.counters.logins.add(1);
        Ok(())
    }

    /// Asks a primary how it greets; `soon`: it has a moment for that, and others do with the old greeting meanwhile.
    async fn renew(&mut self, key: &GreetingKey, soon: bool) -> Result<Greeting, Unasked> {
        if !soon {
            return self.ask_again().await;
        }
        if let Some(old) = self.context.greetings.borrow_mut().get_mut(key) {
            old.good_until = now() + REST;
        }
        let renewed = tokio::time::timeout(REFRESH, self.ask_again()).await;
        self.held_since = None;
        self.show(Doing::Active);
        renewed.unwrap_or(Err(Unasked::Lost))
    }

    /// A primary that is lost while it is asked has a successor soon, for which the second attempt waits like a write.
    async fn ask_again(&mut self) -> Result<Greeting, Unasked> {
        match self.ask_greeting().await {
            Err(Unasked::Lost) => self.ask_greeting().await,
            asked => asked,
        }
    }

    /// Takes a primary's connection, gives it the startup options, and sees what it reports.
    async fn ask_greeting(&mut self) -> Result<Greeting, Unasked> {
        // What the client hears before its greeting is the greeting.
        let fatal = |refusal| Err(Unasked::End(End::Fatal(refusal)));
        let mut lease = match self.lease_primary(&Survey::taken(false), None).await {
            Ok(Some(lease)) => lease,
            // Only a read may be answered elsewhere.
            Ok(None) => return Err(Unasked::Lost),
            Err(NoLease::Refused(refusal)) => return fatal(refusal),
            Err(NoLease::Unreachable(text)) => {
                return fatal(Refusal::new(crate::wire::sqlstate::CANNOT_CONNECT_NOW, text));
            }
            Err(NoLease::Gone) => return Err(Unasked::End(End::Client)),
        };
        self.client.output.clear();
        let text = b"SELECT pg_catalog.current_setting('default_transaction_isolation')";
        let asked = tokio::time::timeout(ASK, lease.server.ask(text, &self.context.hub.buffers)).await;
        let Ok(Ok(outcome)) = asked else {
            self.lose(lease.server);
            return Err(Unasked::Lost);
        };
        let value = outcome.rows.into_iter().flatten().flatten().next().unwrap_or_default();
        let isolation = match &value[..] {
            b"serializable" => Isolation::Serializable,
            b"repeatable read" => Isolation::RepeatableRead,
            _ => Isolation::ReadCommitted,
        };
        let greeting = Greeting { reported: lease.server.reported.clone(), isolation, good_until: now() + FRESH };
        self.give_back(lease.server);
        Ok(greeting)
    }

    /// The name that the application gave itself is reported as it is; everything else is shared by all of a kind.
    fn with_application_name(&self, reported: Rc<Reported>) -> Rc<Reported> {
        let name = self.base.get("application_name").unwrap_or_default();
        if reported.get("application_name") == Some(name) {
            return reported;
        }
        let clean: Vec<u8> = name.iter().map(|&byte| if (32..127).contains(&byte) { byte } else { b'?' }).collect();
        self.context.hub.interner.named(&reported, &clean)
    }
}

/// Somebody asks how a primary greets: others of the kind wait for the answer. Ends with whoever asks.
struct Asking {
    context: Rc<Context>,
    key: GreetingKey,
}

impl Asking {
    fn begin(context: &Rc<Context>, key: &GreetingKey) -> Self {
        context.asking.borrow_mut().entry(key.clone()).or_default();
        Self { context: context.clone(), key: key.clone() }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(waiting) = self.context.asking.borrow_mut().remove(&self.key) {
            waiting.notify_waiters();
        }
    }
}

impl Context {
    /// A greeting that is known. In a storm of logins one asks: the others would queue for the primary behind it, and those that come later, when
    /// the answer is there, would be served before them (SESSIONS R16).
    async fn greeting_of(&self, key: &GreetingKey) -> Option<Greeting> {
        let known = || self.greetings.borrow().get(key).cloned();
        if let Some(greeting) = known() {
            return Some(greeting);
        }
        let asking = self.asking.borrow().get(key).cloned()?;
        let _ = tokio::time::timeout(SHARED, asking.notified()).await;
        known()
    }

    /// Login defaults may have changed: the next clients are greeted by a real login again (SESSIONS R6).
    pub fn forget_greetings(&self) {
        self.greetings.borrow_mut().clear();
    }

    /// `default_transaction_isolation` of a login, as its last greeting found it.
    pub(super) fn login_isolation(&self, who: &Who) -> Isolation {
        let greetings = self.greetings.borrow();
        let same = |(database, user, _): &&(std::sync::Arc<str>, std::sync::Arc<str>, u64)| {
            *database == who.database && *user == who.user
        };
        let found = greetings.iter().find(|(key, _)| same(key)).map(|(_, greeting)| greeting.isolation);
        found.unwrap_or(Isolation::Serializable)
    }
}
