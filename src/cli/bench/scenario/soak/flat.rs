//! The rule that decides whether a figure stayed flat.
//!
//! The first fifth of the readings is left out, while caches fill and the file reaches its size.
//! The median of the last third of the rest is compared with that of the first third. It may be
//! larger by a share and by a fixed amount, both in [`RULES`]. A leak exceeds any share after
//! hours; noise does not.

use std::fmt;

/// The figures at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Seconds since the start.
    pub at: f64,
    /// Resident memory of the broker in MB.
    pub resident: f64,
    /// Size of its database file in MB.
    pub database: f64,
    /// Number of its open descriptors.
    pub descriptors: f64,
    /// Latency of the steady stream since the previous reading: median, in milliseconds.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Maximum.
    pub max: f64,
}

impl Reading {
    /// The names of the columns.
    pub const HEADER: &'static str =
        "   seconds  memory MB    file MB  descriptors   p50 ms   p99 ms   max ms";
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>10.0} {:>10.1} {:>10.1} {:>12} {:>8.2} {:>8.2} {:>8.1}",
            self.at, self.resident, self.database, self.descriptors, self.p50, self.p99, self.max
        )
    }
}

/// A figure that must stay flat.
struct Rule {
    name: &'static str,
    unit: &'static str,
    of: fn(&Reading) -> f64,
    /// The share of itself by which it may grow.
    share: f64,
    /// The fixed amount by which it may grow in addition.
    fixed: f64,
}

const RULES: [Rule; 4] = [
    Rule {
        name: "memory",
        unit: "MB",
        of: |reading| reading.resident,
        share: 0.1,
        fixed: 8.0,
    },
    // The file doubles when overlapping commits need room, which may happen once in a while.
    Rule {
        name: "database file",
        unit: "MB",
        of: |reading| reading.database,
        share: 1.0,
        fixed: 8.0,
    },
    Rule {
        name: "descriptors",
        unit: "",
        of: |reading| reading.descriptors,
        share: 0.1,
        fixed: 8.0,
    },
    Rule {
        name: "latency p50",
        unit: "ms",
        of: |reading| reading.p50,
        share: 1.0,
        fixed: 5.0,
    },
];

/// Readings needed to decide.
const ENOUGH: usize = 6;

/// Describes what did not stay flat. Empty if everything did.
pub fn judge(readings: &[Reading]) -> Vec<String> {
    if readings.len() < ENOUGH {
        return vec![format!(
            "{} readings are too few to judge: at least {ENOUGH} are needed",
            readings.len()
        )];
    }
    let grown = RULES.iter().filter_map(|rule| {
        let (early, late) = ends(readings, rule);
        let most = early * (1.0 + rule.share) + rule.fixed;
        let Rule { name, unit, .. } = rule;
        (late > most).then(|| {
            format!("{name} grew from {early:.1} to {late:.1} {unit}, more than to {most:.1}")
        })
    });
    grown.collect()
}

/// Returns the figures at the beginning and at the end, with names and units.
pub fn figures(readings: &[Reading]) -> Vec<(&'static str, f64, &'static str)> {
    if readings.len() < ENOUGH {
        return Vec::new();
    }
    let names = [
        ("memory, early", "memory, late"),
        ("file, early", "file, late"),
        ("descriptors, early", "descriptors, late"),
        ("p50, early", "p50, late"),
    ];
    let mut told = Vec::new();
    for (rule, (early_name, late_name)) in RULES.iter().zip(names) {
        let (early, late) = ends(readings, rule);
        told.push((early_name, early, rule.unit));
        told.push((late_name, late, rule.unit));
    }
    let worst = readings
        .iter()
        .map(|reading| reading.max)
        .fold(0.0, f64::max);
    told.push(("latency max", worst, "ms"));
    told
}

/// Returns the medians of the first and the last third, without the first fifth of all.
fn ends(readings: &[Reading], rule: &Rule) -> (f64, f64) {
    let settled = &readings[readings.len() / 5..];
    let third = (settled.len() / 3).max(1);
    let median = |readings: &[Reading]| {
        let mut values: Vec<f64> = readings.iter().map(rule.of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    (
        median(&settled[..third]),
        median(&settled[settled.len() - third..]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(of: impl Fn(usize) -> Reading) -> Vec<Reading> {
        (0..60).map(of).collect()
    }

    #[test]
    fn what_stays_is_flat_and_so_is_what_only_rises_at_first() {
        let noise = |n: usize| Reading {
            resident: if n < 12 {
                5.0 * n as f64
            } else {
                60.0 + (n % 3) as f64
            },
            database: 4.0,
            descriptors: 100.0,
            p50: if n == 40 { 500.0 } else { 1.0 },
            ..Reading::default()
        };
        assert_eq!(judge(&readings(noise)), Vec::<String>::new());
    }

    #[test]
    fn what_leaks_is_named() {
        type Leak = fn(&mut Reading, f64);
        let leaks: [(&str, Leak); 4] = [
            ("memory", |reading, n| reading.resident = 50.0 + n),
            ("database file", |reading, n| {
                reading.database = 4.0 + 3.0 * n
            }),
            ("descriptors", |reading, n| reading.descriptors = 50.0 + n),
            ("latency p50", |reading, n| reading.p50 = 1.0 + 2.0 * n),
        ];
        for (name, leak) in leaks {
            let grown = judge(&readings(|n| {
                let mut reading = Reading::default();
                leak(&mut reading, n as f64);
                reading
            }));
            assert_eq!(grown.len(), 1, "{grown:?}");
            assert!(grown[0].starts_with(name), "{grown:?}");
        }
    }

    #[test]
    fn a_few_readings_are_not_judged() {
        assert_eq!(judge(&[Reading::default(); 5]).len(), 1);
        assert_eq!(judge(&[Reading::default(); 6]).len(), 0);
    }
}
