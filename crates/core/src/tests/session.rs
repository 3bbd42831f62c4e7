use crate::reason::EndReason;
use crate::session::{ClientLimits, Clients, Id, Key, Rules, Table, TooMany};
use proptest::prelude::*;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

/// Not keyed: the same in each run.
type Hasher = BuildHasherDefault<DefaultHasher>;

const RULES: Rules = Rules {
    timeout: seconds(60),
    unanswered_timeout: seconds(5),
    requests: None,
    responses: None,
};
/// A sixteenth of the shorter timeout.
const TICK: Duration = Duration::from_micros(312_500);

const NOW: Duration = seconds(1_000);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn key(port: u16) -> Key {
    Key::new(SocketAddr::from(([192, 0, 2, 1], port)), 0, Key::ANY_BACKEND)
}

fn table(rules: Rules) -> Table<u32, Hasher> {
    Table::new(rules, Hasher::default(), seconds(100))
}

fn expired<T>(table: &mut Table<T, Hasher>, now: Duration) -> Vec<Id> {
    std::iter::from_fn(|| Some(table.expire(now, |_| None)?.0.id)).collect()
}

#[test]
fn a_session_without_an_answer_is_over_after_five_seconds_and_one_with_after_sixty() {
    let mut table = table(RULES);
    let silent = table.open(key(1), 1, seconds(100));
    let answered = table.open(key(2), 2, seconds(100));
    table.request(silent, 1, seconds(100));
    table.request(answered, 1, seconds(100));
    assert!(!table.response(answered, 1, seconds(101)));
    assert_eq!(expired(&mut table, Duration::from_millis(104_999)), []);
    assert_eq!(expired(&mut table, seconds(105) + TICK), [silent]);
    assert_eq!(table.find(&key(1)), None);
    assert_eq!(expired(&mut table, Duration::from_millis(160_999)), []);
    assert_eq!(expired(&mut table, seconds(161) + TICK), [answered]);
    assert_eq!((table.len(), table.opened()), (0, 2));
    assert_eq!(table.next_deadline(), None);
}

#[test]
fn datagrams_either_way_keep_a_session() {
    let mut table = table(RULES);
    let id = table.open(key(1), 1, seconds(100));
    assert!(!table.response(id, 1, seconds(100)));
    for now in (150..400).step_by(50) {
        if now % 100 == 0 {
            table.request(id, 1, seconds(now));
        } else {
            assert!(!table.response(id, 1, seconds(now)));
        }
        assert_eq!(expired(&mut table, seconds(now + 49)), [], "at {now}");
    }
    assert_eq!(expired(&mut table, seconds(350 + 60) + TICK), [id]);
}

#[test]
fn a_timeout_longer_than_the_wheel_is_kept_as_well() {
    // 1,024 ticks of a sixteenth of a second are 64 s.
    let rules = Rules {
        timeout: seconds(3_600),
        unanswered_timeout: seconds(1),
        ..RULES
    };
    let mut table = table(rules);
    let id = table.open(key(1), 1, seconds(100));
    assert!(!table.response(id, 1, seconds(100)));
    for now in 100..3_700 {
        assert_eq!(expired(&mut table, seconds(now)), [], "at {now}");
    }
    assert_eq!(expired(&mut table, seconds(3_701)), [id]);
}

#[test]
fn after_its_requests_the_next_datagram_opens_another_and_answers_still_come() {
    let rules = Rules {
        requests: Some(2),
        ..RULES
    };
    let mut table = table(rules);
    let first = table.open(key(1), 1, seconds(100));
    table.request(first, 1, seconds(100));
    assert_eq!(table.find(&key(1)), Some(first));
    table.request(first, 1, seconds(100));
    assert_eq!(table.find(&key(1)), None);
    let second = table.open(key(1), 2, seconds(100));
    table.request(second, 1, seconds(100));
    assert!(!table.response(first, 1, seconds(101)));
    assert_eq!(table.get(first).map(|entry| entry.responses), Some(1));
    // The first's end leaves the second alone.
    assert!(table.close(first).is_some());
    assert_eq!(table.find(&key(1)), Some(second));
    assert_eq!(table.len(), 1);
}

#[test]
fn with_responses_a_session_is_over_once_every_request_is_answered() {
    let rules = Rules {
        responses: Some(1),
        ..RULES
    };
    let mut table = table(rules);
    let id = table.open(key(1), 1, seconds(100));
    for _ in 0..3 {
        table.request(id, 1, seconds(100));
    }
    assert!(!table.response(id, 1, seconds(100)));
    assert!(!table.response(id, 1, seconds(100)));
    assert!(table.response(id, 1, seconds(100)));
}

#[test]
fn a_slot_that_is_used_again_has_another_name() {
    let mut table = table(RULES);
    let first = table.open(key(1), 1, seconds(100));
    assert_eq!(table.close(first).map(|closed| closed.entry.state), Some(1));
    let second = table.open(key(1), 2, seconds(100));
    assert_ne!(first, second);
    assert!(table.get(first).is_none());
    assert!(table.close(first).is_none());
    assert!(!table.response(first, 1, seconds(100)));
    assert_eq!(table.get(second).map(|entry| entry.state), Some(2));
    assert_eq!(Id::unpack(second.pack()), second);
}

#[test]
fn a_key_gives_the_client_back() {
    for text in ["192.0.2.7:53", "[2001:db8::7]:5353", "[fe80::1%3]:9"] {
        let client: SocketAddr = text.parse().expect("an address");
        let key = Key::new(client, 3, 4);
        assert_eq!(key.sender(), client);
        assert_eq!(key.socket(), 3);
    }
    let client = SocketAddr::from(([192, 0, 2, 7], 53));
    let others = [
        Key::new(client, 1, 0),
        Key::new(client, 0, 1),
        Key::new(SocketAddr::from(([192, 0, 2, 7], 54)), 0, 0),
        Key::new(SocketAddr::from(([192, 0, 2, 8], 53)), 0, 0),
        Key::new(client, 0, 0).of_named(NonZeroU32::MIN),
    ];
    assert!(others.iter().all(|other| *other != Key::new(client, 0, 0)));
}

/// What happens to a table.
#[derive(Clone, Debug)]
enum Step {
    /// A datagram of the client with this port.
    Request(u16),
    /// A datagram of the backend in the n-th of all sessions that ever were.
    Response(usize),
    /// The n-th of all sessions is closed.
    Close(usize),
    /// So many milliseconds pass, and what is over is taken down.
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6_u16).prop_map(Step::Request),
        3 => (0..64_usize).prop_map(Step::Response),
        1 => (0..64_usize).prop_map(Step::Close),
        3 => prop_oneof![0..2_000_u64, 0..200_000_u64].prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..120)
}

/// What is known of a session without any wheel or slot.
#[derive(Clone, Copy, Debug)]
struct Known {
    port: u16,
    last: Duration,
    requests: u64,
    responses: u64,
    current: bool,
}

impl Known {
    fn over(&self) -> Duration {
        self.last + seconds(if self.responses > 0 { 60 } else { 5 })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Against a list of sessions that is searched from end to end: who is found, who is over and when, and that opened
    /// less closed are alive.
    #[test]
    fn a_table_is_as_a_list_would_be(
        steps in steps(),
        requests in prop::option::of(1..4_u32),
        responses in prop::option::of(1..3_u32),
    ) {
        let rules = Rules { requests, responses, ..RULES };
        let mut table = table(rules);
        let mut now = seconds(100);
        let mut names: Vec<Id> = Vec::new();
        let mut alive: HashMap<Id, Known> = HashMap::new();
        for step in steps {
            match step {
                Step::Request(port) => {
                    let found = table.find(&key(port));
                    let wanted = alive.iter().find(|(_, known)| known.port == port && known.current);
                    prop_assert_eq!(found, wanted.map(|(&id, _)| id));
                    let id = found.unwrap_or_else(|| {
                        let id = table.open(key(port), u32::from(port), now);
                        names.push(id);
                        alive.insert(id, Known { port, last: now, requests: 0, responses: 0, current: true });
                        id
                    });
                    table.request(id, 1, now);
                    let known = alive.get_mut(&id).expect("it is there");
                    known.requests += 1;
                    known.last = now;
                    known.current = requests.is_none_or(|most| known.requests < u64::from(most));
                }
                Step::Response(nth) if !names.is_empty() => {
                    let id = names[nth % names.len()];
                    let closes = table.response(id, 1, now);
                    let expected = alive.get_mut(&id).is_some_and(|known| {
                        known.responses += 1;
                        known.last = now;
                        responses.is_some_and(|each| known.responses >= u64::from(each) * known.requests)
                    });
                    prop_assert_eq!(closes, expected);
                }
                Step::Close(nth) if !names.is_empty() => {
                    let id = names[nth % names.len()];
                    prop_assert_eq!(table.close(id).is_some(), alive.remove(&id).is_some());
                }
                Step::Response(_) | Step::Close(_) => {}
                Step::Pass(milliseconds) => {
                    now += Duration::from_millis(milliseconds);
                    for id in expired(&mut table, now) {
                        let known = alive.remove(&id);
                        prop_assert!(known.is_some_and(|known| known.over() <= now), "{:?} at {:?}", known, now);
                    }
                    for known in alive.values() {
                        prop_assert!(known.over() + TICK > now, "{:?} is still there at {:?}", known, now);
                    }
                }
            }
            prop_assert_eq!(table.len(), alive.len());
            prop_assert_eq!(table.opened(), names.len() as u64);
            let first = alive.values().map(Known::over).min();
            match (table.next_deadline(), first) {
                (Some(deadline), Some(first)) => prop_assert!(deadline < first + TICK || deadline <= now + TICK),
                (deadline, first) => prop_assert_eq!(deadline.is_some(), first.is_some()),
            }
        }
    }
}

#[test]
fn a_client_has_as_many_sessions_as_it_may_on_all_workers_together() {
    let limits = ClientLimits {
        sessions: Some(100),
        ..ClientLimits::default()
    };
    let clients = Clients::new(limits, Hasher::default());
    let address = [192, 0, 2, 1].into();
    let open = || {
        (0..80)
            .filter_map(|_| clients.open(address, NOW).ok())
            .collect::<Vec<_>>()
    };
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(open);
        (open(), other.join().expect("no panic"))
    });
    assert_eq!(one.len() + other.len(), 100);
    assert_eq!(clients.open(address, NOW).err(), Some(TooMany));
    assert!(clients.open([192, 0, 2, 2].into(), NOW).is_ok(), "another client");
    drop(one);
    assert!(clients.open(address, NOW).is_ok());
}

#[test]
fn a_rate_lets_a_burst_pass_and_then_one_each_interval() {
    let limits = ClientLimits {
        interval: Some(Duration::from_millis(1)),
        burst: 3,
        sessions: None,
    };
    let clients = Clients::new(limits, Hasher::default());
    let client = clients.open([192, 0, 2, 1].into(), NOW).expect("no bound");
    let at = |microseconds| client.may_send(1, NOW + Duration::from_micros(microseconds));
    // Worked out by hand: three at once use up what was saved; each millisecond brings one.
    assert_eq!([at(0), at(0), at(0), at(0)], [true, true, true, false]);
    assert_eq!([at(999), at(1_000), at(1_001)], [false, true, false]);
    assert_eq!([at(3_000), at(3_000), at(3_000)], [true, true, false]);
    assert_eq!(
        [at(90_000), at(90_000), at(90_000), at(90_000)],
        [true, true, true, false]
    );
    // Of the same client's other sessions as well.
    let other = clients.open([192, 0, 2, 1].into(), NOW).expect("no bound");
    assert!(!other.may_send(1, NOW + Duration::from_micros(90_000)));
}

#[test]
fn clients_that_left_are_forgotten() {
    let clients = Clients::new(ClientLimits::default(), Hasher::default());
    for n in 0..200_000_u32 {
        drop(clients.open(std::net::Ipv4Addr::from_bits(n).into(), NOW));
    }
    // The table keeps some that left, but not many.
    assert!(clients.known() < 20_000, "{} are known", clients.known());
}

/// Sessions of one question each, as DNS has them, are bounded by the rate as well.
#[test]
fn a_rate_outlives_the_sessions_that_used_it_up() {
    let limits = ClientLimits {
        interval: Some(Duration::from_millis(100)),
        burst: 2,
        sessions: None,
    };
    let clients = Clients::new(limits, Hasher::default());
    let passes = |at: Duration| {
        let client = clients.open([192, 0, 2, 1].into(), at).expect("no bound");
        client.may_send(1, at)
    };
    assert_eq!([passes(NOW), passes(NOW), passes(NOW)], [true, true, false]);
    // Others come and leave meanwhile, so that room has to be made.
    for n in 0..10_000_u32 {
        drop(clients.open(std::net::Ipv4Addr::from_bits(n).into(), NOW));
    }
    assert!(!passes(NOW + Duration::from_millis(99)));
    assert!(passes(NOW + Duration::from_millis(100)));
}

#[test]
fn a_train_counts_as_its_datagrams() {
    let limits = ClientLimits {
        interval: Some(Duration::from_millis(1)),
        burst: 1,
        sessions: None,
    };
    let client = Clients::new(limits, Hasher::default())
        .open([192, 0, 2, 1].into(), NOW)
        .expect("no bound");
    assert!(client.may_send(8, NOW));
    assert!(!client.may_send(1, NOW + Duration::from_millis(7)));
    assert!(client.may_send(1, NOW + Duration::from_millis(8)));

    let rules = Rules {
        responses: Some(1),
        ..RULES
    };
    let mut table = table(rules);
    let id = table.open(key(1), 1, seconds(100));
    table.request(id, 3, seconds(100));
    assert!(!table.response(id, 2, seconds(100)));
    assert!(table.response(id, 1, seconds(100)));
}

/// One /64 is one client: a host has all of its addresses (RFC 4291, section 2.5.1).
#[test]
fn a_network_of_ipv6_is_one_client() {
    let limits = ClientLimits {
        sessions: Some(1),
        ..ClientLimits::default()
    };
    let clients = Clients::new(limits, Hasher::default());
    let open = |text: &str| clients.open(text.parse().expect("an address"), NOW);
    let _first = open("2001:db8::1").expect("the first");
    assert!(open("2001:db8::ffff:1").is_err(), "the same /64");
    assert!(open("2001:db8:0:1::1").is_ok(), "another one");
}

#[test]
fn a_session_that_moved_has_another_name_and_is_found_as_before() {
    let mut table = table(RULES);
    let first = table.open(key(1), 7, seconds(100));
    let next = table.renewed(first);
    assert_eq!(table.renew(first), Some(next));
    assert!(table.get(first).is_none(), "what still comes for its old socket");
    assert!(!table.response(first, 1, seconds(100)));
    assert_eq!(table.find(&key(1)), Some(next));
    assert_eq!(table.renew(first), None);
    assert_eq!(
        table.get(next).map(|entry| (entry.state, entry.responses)),
        Some((7, 0))
    );
    assert_eq!(expired(&mut table, seconds(105) + TICK), [next]);
}

/// A session that only its backend sends in is not seen by those who pass requests on.
#[test]
fn a_session_may_end_for_another_reason_than_silence() {
    let mut table = table(RULES);
    let busy = table.open(key(1), 1, seconds(100));
    for now in 100..400 {
        assert!(!table.response(busy, 1, seconds(now)));
        let old = |entry: &crate::session::Entry<u32>| {
            (seconds(now) >= entry.opened + seconds(200)).then_some(EndReason::MaxLifetime)
        };
        if let Some((closed, reason)) = table.expire(seconds(now), old) {
            assert_eq!((closed.id, reason), (busy, EndReason::MaxLifetime));
            assert!(
                (300..=360).contains(&now),
                "at {now}: it is looked at once in its timeout"
            );
            return;
        }
    }
    panic!("it lives for ever");
}
