//! The virtual address on hosts of its own: who answers for it, when it goes, what neighbours believe (HA H19 to H21).

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pgherd::app::demo::programs;
use pgherd::config::VipOn;
use pgherd::watchdog::address::{AddressError, Passing, VirtualAddress};

use crate::common;
use crate::net::{self, Net, Place};

const HOSTS: [(&str, &str); 3] = [("one", "10.77.1.1"), ("two", "10.77.1.2"), ("client", "10.77.1.3")];
const VIP: &str = "10.77.1.10";
const VIP6: &str = "fd00:77::10";
/// What a look at the network may take on a busy machine.
const STEP: Duration = Duration::from_secs(10);

fn hosts() -> Option<Net> {
    match net::allowed() {
        Ok(true) => {
            let net = Net::new(&HOSTS);
            for (number, (host, _)) in HOSTS.iter().enumerate() {
                net.host(host).inside(|| said(&format!("ip addr add fd00:77::{}/64 dev lan0 nodad", number + 1)));
            }
            Some(net)
        }
        Ok(false) => None,
        Err(why) => {
            common::skip("the virtual address on hosts of its own", &why);
            None
        }
    }
}

/// Each kind of address in each place where it can live.
fn homes() -> [(&'static str, VipOn); 3] {
    let interface = || VipOn::Interface("lan0".to_owned());
    [(VIP, VipOn::Tun), (VIP, interface()), (VIP6, interface())]
}

/// Runs `work` in a runtime on that host.
fn on<R: Send>(host: &Place, work: impl AsyncFnOnce() -> R + Send) -> R {
    host.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work())
    })
}

async fn open(address: &str, on: &VipOn) -> VirtualAddress {
    VirtualAddress::open(address.parse::<IpAddr>().expect("an address"), on).await.expect("the address can be had")
}

fn said(command: &str) -> String {
    let mut words = command.split_whitespace();
    let mut program = Command::new(words.next().expect("a program"));
    let done = programs::run(program.args(words), &[], STEP).expect("it ends");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Does the address answer to the client's host, which believes nothing of old?
fn answers(net: &Net, address: &str) -> bool {
    net.host("client").inside(|| {
        said(&format!("ip neigh flush to {address}"));
        let mut program = Command::new("bash");
        let script = format!("exec 3<>/dev/tcp/{address}/9");
        // Refused: a host is there. Nobody: no route, after its ARP went unanswered.
        programs::run(program.args(["-c", &script]), &[], STEP).is_ok_and(|done| done.complaint().contains("refused"))
    })
}

/// What follows `word` in what a program of that host says.
fn word_behind(host: &Place, command: &str, word: &str) -> Option<String> {
    let said = host.inside(|| said(command));
    said.split_whitespace().skip_while(|found| *found != word).nth(1).map(str::to_owned)
}

#[test]
fn h19_the_address_is_here_while_it_is_held_and_no_longer() {
    let Some(net) = hosts() else { return };
    for (vip, home) in homes() {
        on(&net.host("one"), async || {
            let address = open(vip, &home).await;
            assert!(!said("ip -o addr show").contains(vip), "{address:?} is not held yet");
            address.hold(Instant::now() + Duration::from_secs(60)).await.expect("held");
            assert!(answers(&net, vip), "{address:?}");
            address.hold(Instant::now() + Duration::from_secs(60)).await.expect("held on");
            let width = if vip == VIP { 32 } else { 128 };
            assert!(said("ip -o addr show").contains(&format!("{vip}/{width}")), "alone");
            address.give_up().await.expect("given up");
            address.give_up().await.expect("nothing is held");
            assert!(!said("ip -o addr show").contains(vip), "gone");
        });
    }
}

#[test]
fn h19_who_freezes_loses_the_address_by_the_kernel_alone() {
    let Some(net) = hosts() else { return };
    for (vip, home) in homes().into_iter().take(2) {
        on(&net.host("one"), async || {
            let address = open(vip, &home).await;
            let begun = Instant::now();
            address.hold(begun + Duration::from_millis(2900)).await.expect("held");
            // Nothing of ours runs from here on but this loop, which only looks.
            while said("ip -o addr show").contains(vip) {
                assert!(begun.elapsed() < Duration::from_secs(10), "{address:?} stays");
                std::thread::sleep(Duration::from_millis(20));
            }
            let held = begun.elapsed();
            assert!(
                held > Duration::from_millis(1500) && held < Duration::from_millis(3900 + 500),
                "{address:?} for {held:?}"
            );
        });
    }
}

#[test]
fn h19_too_late_is_not_held_at_all() {
    let Some(net) = hosts() else { return };
    on(&net.host("one"), async || {
        let address = open(VIP, &VipOn::Tun).await;
        address.hold(Instant::now() + Duration::from_secs(60)).await.expect("held");
        let late = address.hold(Instant::now() + Duration::from_millis(900)).await;
        assert!(matches!(late, Err(AddressError::Late)), "{late:?}");
        assert!(!said("ip -o addr show").contains(VIP), "what was held is given up at once");
    });
}

#[test]
fn h19_a_process_that_dies_takes_its_device_along_and_a_successor_removes_a_stale_copy() {
    let Some(net) = hosts() else { return };
    let host = net.host("one");
    on(&host, async || {
        let address = open(VIP, &VipOn::Tun).await;
        address.hold(Instant::now() + Duration::from_secs(60)).await.expect("held");
        drop(address);
        assert!(!said("ip -o addr show").contains(VIP), "no device, no address");
        // As one that was killed while the address was on an interface.
        said(&format!("ip addr add {VIP}/32 dev lan0 valid_lft 60 preferred_lft 60"));
        let on_device = VirtualAddress::open(VIP.parse().expect("an address"), &VipOn::Tun).await;
        assert!(on_device.is_err_and(|error| error.to_string().contains("interface number")), "somebody else's");
        let _address = open(VIP, &VipOn::Interface("lan0".to_owned())).await;
        assert!(!said("ip -o addr show").contains(VIP), "the stale copy is gone");
    });
}

#[test]
fn h20_h21_a_holder_is_found_by_arp_and_neighbours_follow_an_announcement() {
    let Some(net) = hosts() else { return };
    for (vip, home) in homes() {
        let (held, holds) = mpsc::channel();
        let (asked, over) = mpsc::channel::<()>();
        let neighbour = || word_behind(&net.host("client"), &format!("ip neigh show {vip}"), "lladdr");
        let first = word_behind(&net.host("one"), "ip -o link show lan0", "link/ether").expect("it has one");
        std::thread::scope(|scope| {
            let (one, home) = (net.host("one"), &home);
            scope.spawn(move || {
                on(&one, async move || {
                    let address = open(vip, home).await;
                    assert_eq!(address.holder().await.expect("asked"), None, "nobody has it");
                    address.hold(Instant::now() + Duration::from_secs(60)).await.expect("held");
                    held.send(()).expect("the test waits");
                    over.recv_timeout(STEP).expect("the test goes on");
                });
            });
            holds.recv_timeout(STEP).expect("it is held");
            assert!(answers(&net, vip));
            assert_eq!(neighbour(), Some(first.clone()));
            on(&net.host("two"), async || {
                let address = open(vip, home).await;
                let holder = address.holder().await.expect("asked").map(|mac| mac.to_string());
                assert_eq!(holder, Some(first.clone()), "the first one has it");
                // As after the lease: the first one is cut off and does not know yet.
                net.cut("one");
                assert_eq!(address.holder().await.expect("asked"), None, "nobody answers");
                address.hold(Instant::now() + Duration::from_secs(60)).await.expect("held");
                address.announce();
                let until = Instant::now() + STEP;
                while neighbour().is_none_or(|known| known == first) {
                    assert!(Instant::now() < until, "the client's host still believes {:?}", neighbour());
                    std::thread::sleep(Duration::from_millis(10));
                }
                assert!(answers(&net, vip));
            });
            net.mend("one");
            asked.send(()).expect("it waits");
        });
    }
}

#[test]
fn h19_an_ipv6_address_needs_an_interface_since_neighbours_are_not_answered_for_a_device() {
    let Some(net) = hosts() else { return };
    on(&net.host("one"), async || {
        let refused = VirtualAddress::open(VIP6.parse::<IpAddr>().expect("an address"), &VipOn::Tun).await;
        assert!(matches!(refused, Err(AddressError::NotOnDevice)), "{refused:?}");
    });
}

#[test]
fn h24_what_a_client_begins_while_the_address_is_nowhere_comes_to_its_next_holder() {
    const NOWHERE: Duration = Duration::from_millis(300);
    let Some(net) = hosts() else { return };
    for (vip, home) in homes() {
        let ((held, holds), (go, goes), (gave, gone)) = (mpsc::channel(), mpsc::channel::<()>(), mpsc::channel());
        let there = SocketAddr::new(vip.parse().expect("an address"), 4_711);
        std::thread::scope(|scope| {
            let (one, first) = (net.host("one"), &home);
            scope.spawn(move || {
                on(&one, async move || {
                    let address = open(vip, first).await;
                    address.hold(Instant::now() + Duration::from_secs(60)).await.expect("held");
                    held.send(()).expect("the test waits");
                    goes.recv_timeout(STEP).expect("the test goes on");
                    let ready = Passing::prepare(&address);
                    address.give_up().await.expect("given up");
                    let passing = ready.begin();
                    gave.send(()).expect("the test waits");
                    let begun = Instant::now();
                    passing.heard(STEP).await;
                    assert!(begun.elapsed() >= NOWHERE / 2 && begun.elapsed() < STEP, "{vip}: {:?}", begun.elapsed());
                });
            });
            holds.recv_timeout(STEP).expect("it is held");
            // The client's host knows where the address was.
            assert!(answers(&net, vip));
            go.send(()).expect("it waits");
            gone.recv_timeout(STEP).expect("it is given up");
            let client = net.host("client");
            let connects = scope.spawn(move || {
                client.inside(|| {
                    let begun = Instant::now();
                    TcpStream::connect_timeout(&there, STEP).map(|_| begun.elapsed())
                })
            });
            std::thread::sleep(NOWHERE);
            on(&net.host("two"), async || {
                let any: IpAddr = if there.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
                let listener = TcpListener::bind((any, there.port())).expect("bound");
                let address = open(vip, &home).await;
                address.hold(Instant::now() + Duration::from_secs(60)).await.expect("held");
                address.announce();
                let took = connects.join().expect("no panic").expect("connected");
                // By itself it would have asked again behind a second.
                assert!(took >= NOWHERE / 2 && took < Duration::from_millis(950), "{address:?}: {took:?}");
                drop(listener);
            });
        });
    }
}
