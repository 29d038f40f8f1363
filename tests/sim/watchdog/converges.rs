//! When faults stop, there is soon one leader with the address, and everyone who runs follows it in the same epoch and may write.

use super::world::{SECOND, Time, World, id};

/// From the last fault on: what was promised before runs out, then an election.
pub(crate) const WITHIN: Time = 25 * SECOND;

pub(crate) fn is_whole(world: &World) -> Result<(), String> {
    let leader = world.leader().ok_or("nobody leads")?;
    if !world.has_address(leader) {
        return Err(format!("{leader} leads without the address"));
    }
    let epoch = world.hosts[leader].process.as_ref().map(|process| process.standing.epoch);
    for (member, host) in world.hosts.iter().enumerate() {
        let Some(process) = &host.process else { return Err(format!("{member} is down")) };
        if process.standing.leader != Some(id(leader)) || Some(process.standing.epoch) != epoch {
            return Err(format!("{member} stands at {:?}, {leader} leads in epoch {epoch:?}", process.standing));
        }
        if !world.is_witness(member) && world.writes(member).is_none_or(|(_, until)| until <= world.now) {
            return Err(format!("{member} may not write"));
        }
    }
    Ok(())
}

pub(crate) fn check(world: &World) {
    if let Err(why) = is_whole(world) {
        panic!("whole: {} s after the last fault {why}", WITHIN / SECOND);
    }
}
