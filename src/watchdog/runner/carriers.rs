//! Interfaces without whose networks this proxy serves nobody: the kernel says at once when one loses its carrier. Once all of them have, for a
//! moment, a leader asks for its leadership to be handed over, by whatever network is left (HA H3). Part of the runner; must not decide who leads.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::super::engine::{Event, Ticket};
use crate::cluster::{self, Shared};
use crate::config::{VipOn, Watchdog};
use crate::support::clock::Duration;

/// A bond that changes its port is without a carrier for less.
const MOMENT: Duration = Duration::from_millis(300);
/// All are looked at anew: an event may have been lost.
const LOOK: Duration = Duration::from_secs(5);
/// Nobody waits for this answer: wishes count from 1.
const NOBODY: Ticket = Ticket(0);

/// Whom to watch: those that are named, and the one that has the address.
fn names(watchdog: &Watchdog) -> Vec<String> {
    let mut names = watchdog.monitoring_interfaces.clone();
    if let (VipOn::Interface(name), true) = (&watchdog.vip_on, watchdog.virtual_ip.is_some()) {
        names.push(name.clone());
    }
    names
}

/// Watches beside; whether none of them has a carrier.
pub(super) fn start(
    watchdog: &Watchdog,
    tasks: &mut JoinSet<()>,
    (shared, tell): (&Arc<Shared>, &mpsc::Sender<Event>),
) -> watch::Receiver<bool> {
    let (dark, told) = watch::channel(false);
    tasks.spawn_local(watch(names(watchdog), shared.clone(), (tell.clone(), dark)));
    told
}

/// Runs until it is dropped. `dark`: none of them has a carrier.
async fn watch(names: Vec<String>, shared: Arc<Shared>, (tell, dark): (mpsc::Sender<Event>, watch::Sender<bool>)) {
    while !names.is_empty() {
        if let Err(error) = listen(&names, &shared, (&tell, &dark)).await {
            let why = format!("the state of interfaces is not known: {error}");
            shared.events.record(cluster::Event::warn("links_unknown", "watchdog").why(why));
        }
        dark.send_replace(false);
        sleep(LOOK).await;
    }
}

async fn listen(
    names: &[String],
    shared: &Shared,
    (tell, dark): (&mpsc::Sender<Event>, &watch::Sender<bool>),
) -> io::Result<()> {
    let (connection, handle, mut heard) = new_multicast_connection(&[MulticastGroup::Link])?;
    // Dropped with this set.
    let mut driver = JoinSet::new();
    driver.spawn_local(connection);
    let mut carriers: BTreeMap<String, bool> = names.iter().map(|name| (name.clone(), true)).collect();
    look(&handle, &mut carriers, shared).await?;
    // One that was never there is a slip in the file, and no reason to give anything up.
    let mut lit = false;
    let mut known = carriers.clone();
    loop {
        // What could not be done without it may be possible now.
        if carriers.iter().any(|(name, carrier)| *carrier && known.get(name) == Some(&false)) {
            let _ = tell.send(Event::Mended).await;
        }
        known.clone_from(&carriers);
        lit |= carriers.values().any(|carrier| *carrier);
        let none = lit && carriers.values().all(|carrier| !carrier);
        if !none {
            dark.send_if_modified(|dark| std::mem::replace(dark, false));
        }
        match timeout(if none { MOMENT } else { LOOK }, heard.next()).await {
            Ok(Some((message, _))) => match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    note(&link, true, &mut carriers, shared)
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                    note(&link, false, &mut carriers, shared)
                }
                _ => {}
            },
            Ok(None) => return Err(io::Error::other("the kernel says nothing any more")),
            Err(_) => {
                if none {
                    dark.send_if_modified(|dark| !std::mem::replace(dark, true));
                    // Refused while nobody is there to take over, or by who does not lead: asked again.
                    let _ = tell.send(Event::HandOver(NOBODY, None)).await;
                }
                look(&handle, &mut carriers, shared).await?;
            }
        }
    }
}

/// Asks for all of them; one that is not there has no carrier.
async fn look(handle: &Handle, carriers: &mut BTreeMap<String, bool>, shared: &Shared) -> io::Result<()> {
    let all: Vec<LinkMessage> =
        handle.link().get().execute().try_collect().await.map_err(|error| io::Error::other(error.to_string()))?;
    let missing: Vec<String> =
        carriers.keys().filter(|name| !all.iter().any(|link| name_of(link) == Some(name))).cloned().collect();
    all.iter().for_each(|link| note(link, true, carriers, shared));
    missing.iter().for_each(|name| change(name, false, carriers, shared));
    Ok(())
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn note(link: &LinkMessage, there: bool, carriers: &mut BTreeMap<String, bool>, shared: &Shared) {
    if let Some(name) = name_of(link) {
        change(name, there && link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp), carriers, shared);
    }
}

fn change(name: &str, carrier: bool, carriers: &mut BTreeMap<String, bool>, shared: &Shared) {
    let Some(known) = carriers.get_mut(name) else { return };
    if std::mem::replace(known, carrier) == carrier {
        return;
    }
    let event = if carrier {
        cluster::Event::info("link_up", "watchdog").why(format!("{name} has a carrier again"))
    } else {
        cluster::Event::warn("link_down", "watchdog").why(format!("{name} has no carrier"))
    };
    shared.events.record(event);
}
