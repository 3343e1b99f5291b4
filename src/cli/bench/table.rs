//! Figures as text: one line for each figure, one column for each broker.

use super::outcome::{Metric, Outcome};

/// Returns an outcome as text with one line for each figure.
pub fn outcome(outcome: &Outcome) -> String {
    let mut text = format!("{}: {}\n", outcome.name, outcome.what);
    for Metric {
        name, value, unit, ..
    } in &outcome.metrics
    {
        text += &format!("  {name:<18}{:>14} {unit}\n", number(*value));
    }
    match outcome.wrong() {
        Some(repeated) if outcome.is_clean() => {
            text += &format!("  {repeated}, which QoS 1 allows after a lost connection\n");
        }
        Some(wrong) => text += &format!("  WRONG: {wrong}\n"),
        None => text += "  nothing lost, repeated or out of order\n",
    }
    for doubt in &outcome.doubts {
        text += &format!("  VOID{}: {}\n", doubt.about, doubt.what);
    }
    text
}

/// Formats a number with three or four significant digits and thousands separated.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1000.0 {
        let whole = format!("{size:.0}");
        let mut text = String::new();
        for (at, digit) in whole.chars().enumerate() {
            if at > 0 && (whole.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}{text}");
    }
    match size {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::outcome::{About, Better};

    #[test]
    fn numbers_are_as_long_as_they_tell_something() {
        for (value, text) in [
            (0.0, "0"),
            (0.555, "0.56"),
            (9.96, "9.96"),
            (12.34, "12.3"),
            (123.4, "123"),
            (999.9, "1000"),
            (1234.0, "1,234"),
            (1_234_567.8, "1,234,568"),
            (-5000.0, "-5,000"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn an_outcome_has_a_line_for_each_figure() {
        let mut found = Outcome {
            name: "pairs".to_owned(),
            what: "much".to_owned(),
            ..Outcome::default()
        };
        found.add("delivered", 1e6, "/s", Better::Higher);
        let text = outcome(&found);
        assert!(text.starts_with("pairs: much\n"));
        assert!(
            text.contains("delivered              1,000,000 /s"),
            "{text}"
        );
        assert!(text.contains("nothing lost"));
        found.faults.lost = 3;
        assert!(outcome(&found).contains("WRONG: 3 lost"));
        (found.faults.lost, found.faults.duplicates, found.may_repeat) = (0, 3, true);
        assert!(outcome(&found).contains("3 repeated, which QoS 1 allows"));
        found.doubt(About::Speed, "the load was the limit".to_owned());
        assert!(outcome(&found).ends_with("VOID (rates, latencies): the load was the limit\n"));
    }
}
