//! Orders that are for whoever leads the partner proxies, or for all of them, and what partners ask of this one. An order is passed on once:
//! what a partner asks is done here or refused, so that no two wait for each other. Must not decide who leads.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::answer::{self, at_rest};
use super::house::House;
use super::request::StopMode;
use crate::cluster::{Errand, Event, NodeId, Partner, Sign, Status};
use crate::failover::engine::Order;
use crate::support::clock;

/// How long an order waits for somebody to lead.
const ELECTION: Duration = Duration::from_secs(5);
/// How often it is looked for that, and for what was agreed.
const LOOK: Duration = Duration::from_millis(20);
/// A partner that works on something says so this often.
const SIGN: Duration = Duration::from_secs(1);
/// One that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(6);
/// How long this proxy may take to obey what whoever leads has answered already.
const AGREED: Duration = Duration::from_secs(2);
/// Before this process begins to stop for a partner, so that the answer leaves.
const PARTING: Duration = Duration::from_millis(200);
/// Signs that may wait.
const SIGNS: usize = 4;

/// What a partner asks.
#[derive(Debug)]
pub struct Asked {
    /// What.
    pub errand: Errand,
    /// Who wants it, and by whom it came.
    pub who: String,
    /// Where signs of life and the answer go.
    pub signs: mpsc::Sender<Sign>,
}

/// An order about nodes, as partners say it.
fn errand(order: Order) -> Errand {
    match order {
        Order::Attach(node) => Errand::Attach(node.0),
        Order::Detach(node) => Errand::Detach(node.0),
        Order::Promote(node) => Errand::Promote(node.0),
        Order::SwitchOver(node) => Errand::SwitchOver(node.map(|node| node.0)),
    }
}

/// The same for people, as they would give it.
fn command(errand: &Errand) -> String {
    match errand {
        Errand::Detach(node) => format!("detach_node {node}"),
        Errand::Attach(node) => format!("attach_node {node}"),
        Errand::Promote(node) => format!("promote_node {node}"),
        Errand::SwitchOver(None) => "switch_over".to_owned(),
        Errand::SwitchOver(Some(node)) => format!("switch_over {node}"),
        Errand::Recover(node) => format!("recovery_node {node}"),
        Errand::Rest(_) => "pools".to_owned(),
        Errand::Keep { .. } | Errand::Forget(_) => "node_info".to_owned(),
        Errand::Reload => "reload_config".to_owned(),
        Errand::Stop(_) => "stop".to_owned(),
    }
}

/// The other proxies, as they were seen last.
fn partners<H: House>(house: &H) -> Vec<Partner> {
    let Some(group) = house.global().cluster.group.load_full() else { return Vec::new() };
    let own = group.own;
    let others = group.members.iter().enumerate().filter(|(at, member)| *at != own && member.duty == "proxy");
    others.map(|(_, member)| member.clone()).collect()
}

/// Whom an order about nodes is for; none: this proxy, which leads or is alone.
///
/// # Errors
/// Nobody leads.
async fn leader<H: House>(house: &H) -> Result<Option<Partner>, String> {
    let deadline = clock::now() + ELECTION;
    loop {
        if house.leads() {
            return Ok(None);
        }
        // One that has stopped leading a moment ago refuses, and says so.
        if let Some(leader) = partners(house).into_iter().find(|partner| partner.state == "LEADER") {
            return Ok(Some(leader));
        }
        if clock::now() >= deadline {
            let why = "nobody leads the partner proxies: no majority has confirmed one";
            return Err(format!(
                "{why} for {} s (`pgherd pcp watchdog_info` tells who is there); nothing was changed",
                ELECTION.as_secs()
            ));
        }
        sleep(LOOK).await;
    }
}

/// Asks one partner and waits for its answer.
async fn ask<H: House>(house: &H, partner: &str, errand: Errand, who: &str) -> Result<String, String> {
    let (signs, mut coming) = mpsc::channel(SIGNS);
    house.ask(partner, errand, who, signs)?;
    loop {
        match timeout(SILENCE, coming.recv()).await {
            Ok(Some(Sign::Still(how))) => {
                house.tell_progress(if how.is_empty() { how } else { format!("{partner}: {how}") })
            }
            Ok(Some(Sign::Done(answer))) => {
                house.tell_progress(String::new());
                return answer;
            }
            silent => {
                house.tell_progress(String::new());
                let since = if silent.is_err() { "does not answer" } else { "cannot be asked any more" };
                return Err(format!("{partner} {since}: nobody here knows what came of it; its event log does"));
            }
        }
    }
}

/// Gives an order about nodes to whoever leads.
pub(super) async fn order<H: House>(house: &H, order: Order, who: &str) -> Result<String, String> {
    match leader(house).await? {
        None => house.order(order).await,
        Some(leader) => {
            let said = ask_leader(house, &leader, errand(order), who).await?;
            obeyed(house, order).await;
            Ok(format!("{said} (by {}, which leads)", leader.name))
        }
    }
}

/// Has a node rebuilt by whoever leads.
pub(super) async fn recover<H: House>(house: &H, node: NodeId, who: &str) -> Result<String, String> {
    match leader(house).await? {
        None => house.recover(node).await,
        Some(leader) => ask_leader(house, &leader, Errand::Recover(node.0), who).await,
    }
}

async fn ask_leader<H: House>(house: &H, leader: &Partner, errand: Errand, who: &str) -> Result<String, String> {
    let there = format!("give it at {} itself: `pgherd pcp -h {} {}`", leader.name, leader.host, command(&errand));
    if let Some(differs) = leader.differs.iter().find(|name| numbers_nodes(name)) {
        let why = format!("{differs} is not the same here and at {}, which leads", leader.name);
        return Err(format!("{why}, so that a node's number may mean another one there: {there}"));
    }
    match ask(house, &leader.name, errand, who).await {
        Err(why) if why.contains("nothing was asked") => Err(format!("{why}, although it leads: {there}")),
        other => other,
    }
}

/// Does a setting of that name tell which node a number means?
fn numbers_nodes(name: &str) -> bool {
    name.starts_with("node.") || name == "watchdog.nodes"
}

/// What whoever leads has said holds here a moment later: who gave the order sees it here.
async fn obeyed<H: House>(house: &H, order: Order) {
    let holds = || {
        let view = house.global().cluster.view();
        let is_out = |node| view.node(node).is_some_and(|node| node.status == Status::Detached);
        match order {
            Order::Detach(node) => is_out(node),
            Order::Attach(node) => !is_out(node),
            Order::Promote(node) | Order::SwitchOver(Some(node)) => view.primary == Some(node),
            Order::SwitchOver(None) => true,
        }
    };
    let deadline = clock::now() + AGREED;
    while !holds() && clock::now() < deadline {
        sleep(LOOK).await;
    }
}

/// No session of any proxy uses this node any more, or why that is not known.
pub(super) async fn all_at_rest<H: House>(house: &H, node: NodeId, who: &str) -> Result<(), String> {
    let here = async { ("this proxy".to_owned(), at_rest(house, node).await.map(|()| String::new())) };
    let others = everywhere(house, Errand::Rest(node.0), who);
    let (here, mut all) = tokio::join!(here, others);
    all.push(here);
    let failed: Vec<String> =
        all.into_iter().filter_map(|(name, answer)| Some(format!("{name}: {}", answer.err()?))).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}

/// Asks all other proxies at once; one that has stopped in order needs not to be asked.
async fn everywhere<H: House>(house: &H, errand: Errand, who: &str) -> Vec<(String, Result<String, String>)> {
    let one = |partner: Partner| {
        let errand = errand.clone();
        async move {
            let answer = match partner.state {
                "SHUTDOWN" => Ok("it has stopped".to_owned()),
                _ => ask(house, &partner.name, errand, who).await,
            };
            (partner.name, answer)
        }
    };
    futures_util::future::join_all(partners(house).into_iter().map(one)).await
}

/// What all said, one line each.
fn lines(all: &[(String, Result<String, String>)]) -> String {
    let line = |(name, answer): &(String, Result<String, String>)| match answer {
        Ok(text) => format!("{name}: {text}"),
        Err(why) => format!("{name}: FAILED: {why}"),
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn own_name<H: House>(house: &H) -> String {
    let settings = house.settings();
    settings.watchdog.as_ref().map_or("this proxy".to_owned(), |watchdog| watchdog.name.clone())
}

/// All proxies read their configuration files again.
///
/// # Errors
/// One at least did not; with what all have said.
pub(super) async fn reload<H: House>(house: &H, who: &str) -> Result<String, String> {
    let here = async { house.reload(who).await.map(|reloaded| reloaded.in_words()) };
    let (here, others) = tokio::join!(here, everywhere(house, Errand::Reload, who));
    let all = [vec![(own_name(house), here)], others].concat();
    if all.iter().all(|(_, answer)| answer.is_ok()) { Ok(lines(&all)) } else { Err(lines(&all)) }
}

/// All other proxies stop, whoever leads last; this one stops behind the answer.
///
/// # Errors
/// One at least was not told; with what all have said.
pub(super) async fn stop<H: House>(house: &H, mode: StopMode, who: &str) -> Result<String, String> {
    house.may_stop()?;
    let mut others = partners(house);
    others.sort_by_key(|partner| partner.state == "LEADER");
    let mut all = Vec::new();
    for partner in others {
        let answer = match partner.state {
            "SHUTDOWN" => Ok("it has stopped".to_owned()),
            _ => ask(house, &partner.name, Errand::Stop(mode), who).await,
        };
        all.push((partner.name, answer));
    }
    all.push((own_name(house), Ok("stopping".to_owned())));
    if all.iter().all(|(_, answer)| answer.is_ok()) { Ok(lines(&all)) } else { Err(lines(&all)) }
}

/// Does what partners ask until its future is dropped, each beside the others.
pub(super) async fn serve<H: House + 'static>(house: Rc<H>, mut asked: mpsc::Receiver<Asked>) {
    while let Some(asked) = asked.recv().await {
        let house = house.clone();
        tokio::task::spawn_local(async move { obey(&*house, asked).await });
    }
}

async fn obey<H: House>(house: &H, asked: Asked) {
    let Asked { errand, who, signs } = asked;
    let mut done = std::pin::pin!(act(house, errand.clone(), &who));
    let mut ticks = interval(SIGN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut done => break answer,
            // A full queue: whoever asked gets the next one.
            _ = ticks.tick() => drop(signs.try_send(Sign::Still(house.recovery()))),
        }
    };
    let stops = answer.is_ok();
    // Whoever asked may have given up; what was begun is done all the same.
    let _ = signs.send(Sign::Done(answer)).await;
    if let Errand::Stop(mode) = errand
        && stops
    {
        sleep(PARTING).await;
        house.stop(mode, &who);
    }
}

/// Here, and nowhere else.
async fn act<H: House>(house: &H, errand: Errand, who: &str) -> Result<String, String> {
    let here = |order: Order| answer::given(house, answer::named(order), who, house.order(order));
    match errand {
        Errand::Detach(node) => here(Order::Detach(NodeId(node))).await,
        Errand::Attach(node) => here(Order::Attach(NodeId(node))).await,
        Errand::Promote(node) => here(Order::Promote(NodeId(node))).await,
        Errand::SwitchOver(node) => here(Order::SwitchOver(node.map(NodeId))).await,
        Errand::Recover(node) => {
            if !house.leads() {
                return Err("this proxy does not lead".to_owned());
            }
            let node = NodeId(node);
            answer::given(house, ("order_recover", Some(node)), who, house.recover(node)).await
        }
        Errand::Rest(node) => at_rest(house, NodeId(node)).await.map(|()| "nobody uses it".to_owned()),
        Errand::Keep { .. } | Errand::Forget(_) => Err("this is for whoever keeps originals".to_owned()),
        Errand::Reload => house.reload(who).await.map(|reloaded| reloaded.in_words()),
        Errand::Stop(_) => {
            house.may_stop()?;
            house.global().cluster.events.record(Event::info("order_stop", who));
            Ok("stopping".to_owned())
        }
    }
}

/// Is the whole group meant, and is there one?
pub(super) fn is_whole<H: House>(house: &H, group: bool) -> Result<bool, String> {
    match (group, house.settings().watchdog.is_some()) {
        (true, false) => Err("there is no group: watchdog is not enabled".to_owned()),
        (group, _) => Ok(group),
    }
}
