//! When the engine probes.

use super::*;

/// When a node's probes started, as if all began at once; a minute of them.
fn starts(seed: u64, period: Duration, id: NodeId) -> Vec<Duration> {
    let mut nodes = [P, A, B].map(settings).to_vec();
    nodes.iter_mut().for_each(|node| node.thresholds.period = period);
    let mut world = World::of(nodes, [(P, primary(1, 1000)), (A, standby(1, 1000)), (B, standby(1, 900))]);
    world.engine = Engine::new(world.engine.nodes.iter().map(|node| node.settings.clone()).collect(), seed, world.now);
    let begun = world.now;
    world.run(60_000 * MS);
    world.probes.iter().filter(|(node, ..)| *node == id).map(|(_, at, _)| *at - begun).collect()
}

#[test]
fn two_nodes_of_the_same_period_do_not_stay_in_step_and_none_is_asked_too_late() {
    let period = Thresholds::default().period;
    let mut sums = BTreeMap::new();
    for seed in 0..20 {
        for id in [P, A] {
            let starts = starts(seed, period, id);
            let gaps: Vec<Duration> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(gaps.iter().all(|gap| *gap <= period && *gap >= period.mul_f64(1.0 - EARLY)), "{gaps:?}");
            let sum: Duration = gaps.iter().map(|gap| period - *gap).sum();
            // Half of what is allowed, on the average.
            let early = sum.as_secs_f64() / gaps.len() as f64 / period.as_secs_f64();
            assert!(early > EARLY * 0.3 && early < EARLY * 0.7, "{early}");
            sums.insert((seed, id), starts);
        }
        let same = sums[&(seed, P)].iter().skip(1).filter(|at| sums[&(seed, A)].contains(at)).count();
        assert_eq!(same, 0, "seed {seed}: they are asked at the same moment");
    }
    assert_ne!(sums[&(0, P)], sums[&(1, P)], "two proxies are not in step");
    assert_eq!(sums[&(7, P)], starts(7, period, P), "a seed alone decides");
}

#[test]
fn the_shortest_period_is_kept_as_it_is() {
    let starts = starts(3, MIN_GAP, A);
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == MIN_GAP), "{starts:?}");
}
