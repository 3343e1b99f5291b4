//! One function a promise.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use support::{Connect, Version};

use crate::publisher::{self, Sent};
use crate::subscriber::Received;

/// What was done to the broker.
#[derive(Default)]
pub struct Injected {
    /// SIGKILLs.
    pub kills: u64,
    /// The longest time from a start to the broker's ready line.
    pub slowest_start: Duration,
}

/// The retained number of each publisher's state, as a new subscriber gets it.
pub fn read_retained(addr: SocketAddr, sent: &[Sent]) -> HashMap<usize, u64> {
    let mut client = Connect::new(Version::V5, "retained").open(addr);
    let mut retained = HashMap::new();
    for sent in sent {
        client.subscribe(&publisher::state(sent.publisher), 0);
        client.ping();
        if let Ok(Some(support::Packet::Publish(publish))) =
            client.try_receive(Duration::from_secs(5))
        {
            let number = publish.text().split(' ').nth(1).map(str::parse::<u64>);
            if let Some(Ok(number)) = number {
                retained.insert(sent.publisher, number);
            }
        }
    }
    retained
}

/// Checks all promises, and prints what was injected and counted.
pub fn check(
    injected: &Injected,
    sent: &[Sent],
    received: &[Received],
    retained: &HashMap<usize, u64>,
) {
    let acknowledged: u64 = sent.iter().map(|sent| sent.acknowledged).sum();
    let taken: usize = received.iter().map(|received| received.taken.len()).sum();
    println!(
        "injected: {} SIGKILLs; slowest start {:?}\n\
         sent: {acknowledged} messages acknowledged to the end, {} sent again, {} connections of publishers\n\
         received: {taken} messages taken in, {} marked DUP, {} connections of subscribers",
        injected.kills,
        injected.slowest_start,
        sent.iter().map(|sent| sent.resent).sum::<u64>(),
        sent.iter().map(|sent| sent.connections).sum::<u64>(),
        received
            .iter()
            .map(|received| received.repeated)
            .sum::<u64>(),
        received
            .iter()
            .map(|received| received.connections)
            .sum::<u64>(),
    );
    assert!(acknowledged > 100, "there was hardly any load");
    let mut problems = Vec::new();
    for received in received {
        let durable = received.durable;
        for sent in sent {
            let mine: Vec<u64> = received
                .taken
                .iter()
                .filter(|taken| taken.publisher == sent.publisher && taken.qos == sent.qos)
                .map(|taken| taken.number)
                .collect();
            let name = format!("{} from publisher {}", received.name, sent.publisher);
            if durable {
                problems.extend(lost(&name, sent, &mine));
                problems.extend(reordered(&name, &mine));
            }
            if durable && sent.qos == 2 {
                problems.extend(duplicated(&name, &mine));
            }
        }
    }
    for sent in sent {
        problems.extend(stale(sent, retained));
    }
    println!("lost, duplicated, reordered or stale: {}", problems.len());
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// Nothing acknowledged is lost.
pub fn lost(name: &str, sent: &Sent, mine: &[u64]) -> Option<String> {
    let seen: std::collections::HashSet<u64> = mine.iter().copied().collect();
    let lost: Vec<u64> = (0..sent.acknowledged)
        .filter(|number| !seen.contains(number))
        .collect();
    (!lost.is_empty()).then(|| format!("{name}: lost {} messages: {:?}", lost.len(), first(&lost)))
}

/// QoS 2 is exactly once.
pub fn duplicated(name: &str, mine: &[u64]) -> Option<String> {
    let mut seen = std::collections::HashSet::new();
    let twice: Vec<u64> = mine.iter().copied().filter(|n| !seen.insert(*n)).collect();
    (!twice.is_empty()).then(|| format!("{name}: {} duplicates: {:?}", twice.len(), first(&twice)))
}

/// First occurrences come in the order in which they were published, topic by topic (even and odd
/// numbers have a topic each).
pub fn reordered(name: &str, mine: &[u64]) -> Option<String> {
    let mut seen = std::collections::HashSet::new();
    let mut last = [None, None];
    for &number in mine.iter().filter(|number| seen.insert(**number)) {
        let topic = (number % 2) as usize;
        if last[topic] > Some(number) {
            return Some(format!("{name}: {number} came after {:?}", last[topic]));
        }
        last[topic] = Some(number);
    }
    None
}

/// Retained is the last acknowledged.
pub fn stale(sent: &Sent, retained: &HashMap<usize, u64>) -> Option<String> {
    let last = (0..sent.acknowledged)
        .rev()
        .find(|number| number % 2 == 1)?;
    let kept = retained.get(&sent.publisher).copied();
    (kept != Some(last)).then(|| {
        format!(
            "publisher {}: {kept:?} is retained instead of {last}",
            sent.publisher
        )
    })
}

fn first(numbers: &[u64]) -> &[u64] {
    &numbers[..numbers.len().min(10)]
}

mod tests {
    use super::*;

    fn sent(acknowledged: u64) -> Sent {
        Sent {
            publisher: 0,
            qos: 2,
            acknowledged,
            resent: 0,
            connections: 0,
        }
    }

    #[test]
    fn the_checkers_find_what_they_are_for() {
        assert!(lost("", &sent(3), &[0, 1, 2, 3]).is_none());
        assert!(lost("", &sent(3), &[0, 2]).is_some());
        assert!(duplicated("", &[0, 1, 2]).is_none());
        assert!(duplicated("", &[0, 1, 0]).is_some());
        assert!(reordered("", &[0, 2, 1, 0, 4, 3]).is_none());
        assert!(reordered("", &[0, 4, 1, 2]).is_some());
        assert!(stale(&sent(4), &HashMap::from([(0, 3)])).is_none());
        assert!(stale(&sent(4), &HashMap::from([(0, 1)])).is_some());
        assert!(stale(&sent(4), &HashMap::new()).is_some());
    }
}
