//! Comparison of several brokers: medians, and ratios with their range.

use super::outcome::{Better, Metric, Record};
use super::table::number;

/// Returns a table of the results of several brokers in one scenario. Ratios are to the first
/// broker, round by round.
pub fn table(names: &[&str], records: &[Record]) -> String {
    let Some(first) = records.first() else {
        return String::new();
    };
    let mut text = format!("{}: {}\n{:<34}", first.outcome.name, first.outcome.what, "");
    for (at, name) in names.iter().enumerate() {
        text += &format!("{name:>14}");
        if at > 0 {
            text += &format!("  {:<24}", "ratio (lowest, highest)");
        }
    }
    text.push('\n');
    for metric in &first.outcome.metrics {
        text += &line(names, records, metric);
    }
    for record in records.iter().filter(|record| !record.outcome.is_clean()) {
        if let Some(wrong) = record.outcome.wrong() {
            text += &format!(
                "  WRONG at {}, round {}: {wrong}\n",
                record.broker, record.round
            );
        }
    }
    for record in records {
        for doubt in &record.outcome.doubts {
            let (broker, round) = (&record.broker, record.round);
            let (about, what) = (doubt.about, &doubt.what);
            text += &format!("  VOID{about} at {broker}, round {round}: {what}\n");
        }
    }
    text
}

/// Returns whether a figure of one of these brokers is void in any round, so that there is no
/// ratio.
fn is_void(records: &[Record], brokers: [&str; 2], metric: &str) -> bool {
    let of_these = |record: &&Record| brokers.contains(&record.broker.as_str());
    let mut records = records.iter().filter(of_these);
    records.any(|record| record.outcome.is_void(metric))
}

/// Returns the median of a figure over all rounds of a broker. `None` if it has no such figure.
pub fn median(records: &[Record], broker: &str, metric: &str) -> Option<f64> {
    middle(values(records, broker, metric))
}

fn line(names: &[&str], records: &[Record], metric: &Metric) -> String {
    let title = match metric.unit {
        "" => metric.name.to_owned(),
        unit => format!("{} {unit}", metric.name),
    };
    let mut text = format!("  {title:<32}");
    for (at, name) in names.iter().enumerate() {
        match median(records, name, metric.name) {
            Some(value) => text += &format!("{:>14}", number(value)),
            None => text += &format!("{:>14}", "-"),
        }
        if at > 0 {
            let told = match metric.better {
                Better::Neither => String::new(),
                _ if is_void(records, [names[0], name], metric.name) => "void".to_owned(),
                _ => ratio(records, names[0], name, metric.name),
            };
            text += &format!("  {told:<24}");
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Returns the ratio of two brokers' figures, with the lowest and highest ratio of all rounds.
fn ratio(records: &[Record], base: &str, other: &str, metric: &str) -> String {
    let base = values(records, base, metric);
    let other = values(records, other, metric);
    let pairs = base.iter().zip(&other);
    let ratios: Vec<f64> = pairs
        .filter(|(base, _)| **base != 0.0)
        .map(|(base, other)| other / base)
        .collect();
    let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let high = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match middle(ratios) {
        Some(middle) => format!("{} ({}, {})", number(middle), number(low), number(high)),
        None => String::new(),
    }
}

fn values(records: &[Record], broker: &str, metric: &str) -> Vec<f64> {
    records
        .iter()
        .filter(|record| record.broker == broker)
        .filter_map(|record| record.outcome.value(metric))
        .collect()
}

fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        count if count.is_multiple_of(2) => Some((values[half - 1] + values[half]) / 2.0),
        _ => Some(values[half]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::outcome::{About, Outcome};

    fn record(broker: &str, round: usize, rate: f64) -> Record {
        let mut outcome = Outcome {
            name: "pairs qos0".to_owned(),
            ..Outcome::default()
        };
        outcome.add("delivered", rate, "/s", Better::Higher);
        outcome.add("client cpu", 1.0, "us", Better::Neither);
        Record {
            broker: broker.to_owned(),
            round,
            outcome,
        }
    }

    #[test]
    fn the_middle_of_values() {
        assert_eq!(middle(Vec::new()), None);
        assert_eq!(middle(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(middle(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn brokers_stand_beside_each_other_with_ratios() {
        let mut records = vec![
            record("a", 1, 100.0),
            record("b", 1, 50.0),
            record("a", 2, 200.0),
            record("b", 2, 150.0),
        ];
        let text = table(&["a", "b"], &records);
        let line = text
            .lines()
            .find(|line| line.contains("delivered"))
            .expect("a line");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words,
            ["delivered", "/s", "150", "100", "0.62", "(0.50,", "0.75)"]
        );
        let line = text
            .lines()
            .find(|line| line.contains("client cpu"))
            .expect("a line");
        assert!(!line.contains('('), "{line}");
        records[3].outcome.faults.lost = 9;
        let text = table(&["a", "b"], &records);
        assert!(text.contains("WRONG at b, round 2: 9 lost"));
        let line = text.lines().find(|line| line.contains("delivered"));
        assert!(
            line.is_some_and(|line| line.ends_with("100  void")),
            "{text}"
        );
        records[3].outcome.faults.lost = 0;
        let limit = "the load was the limit".to_owned();
        records[0].outcome.doubt(About::Speed, limit);
        let text = table(&["a", "b"], &records);
        assert!(
            text.contains("VOID (rates, latencies) at a, round 1: the load"),
            "{text}"
        );
        let line = text.lines().find(|line| line.contains("delivered"));
        assert!(
            line.is_some_and(|line| line.ends_with("100  void")),
            "{text}"
        );
        assert_eq!(table(&["a"], &[]), "");
    }
}
