//! All results as one JSON document.

use super::outcome::{Outcome, Record, Sample};
use crate::cli::json::push_string;

/// Returns the document: a list with an object for each scenario, broker and round.
pub fn document(records: &[Record]) -> String {
    let records: Vec<String> = records.iter().map(record).collect();
    format!("[\n{}\n]\n", records.join(",\n"))
}

fn record(record: &Record) -> String {
    let Outcome {
        name,
        what,
        metrics,
        latency,
        curve,
        samples,
        faults,
        doubts,
        ..
    } = &record.outcome;
    let doubts: Vec<String> = doubts.iter().map(|doubt| text(&doubt.what)).collect();
    let metrics = metrics.iter().map(|metric| {
        format!(
            "{}:{{\"value\":{},\"unit\":{}}}",
            text(metric.name),
            number(metric.value),
            text(metric.unit)
        )
    });
    let latency = latency.map_or("null".to_owned(), |latency| {
        format!(
            "{{\"count\":{},\"mean\":{},\"p50\":{},\"p90\":{},\"p99\":{},\"p999\":{},\"max\":{}}}",
            latency.count,
            number(latency.mean),
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p999,
            latency.max
        )
    });
    let curve = curve
        .iter()
        .map(|(share, value)| format!("[{share},{value}]"));
    format!(
        "{{\"scenario\":{},\"what\":{},\"broker\":{},\"round\":{},\"metrics\":{{{}}},\"latency_ns\":{latency},\"latency_curve_ns\":[{}],\
         \"samples\":[{}],\"faults\":{{\"lost\":{},\"duplicates\":{},\"disordered\":{},\"refused\":{},\"strange\":{}}},\"clean\":{},\"void\":[{}]}}",
        text(name),
        text(what),
        text(&record.broker),
        record.round,
        metrics.collect::<Vec<_>>().join(","),
        curve.collect::<Vec<_>>().join(","),
        samples.iter().map(sample).collect::<Vec<_>>().join(","),
        faults.lost,
        faults.duplicates,
        faults.disordered,
        faults.refused,
        faults.unexpected,
        record.outcome.is_clean(),
        doubts.join(",")
    )
}

fn sample(sample: &Sample) -> String {
    let resident = sample
        .resident
        .map_or("null".to_owned(), |bytes| bytes.to_string());
    format!(
        "{{\"at\":{},\"rate\":{},\"cores\":{},\"resident\":{resident}}}",
        number(sample.at),
        number(sample.rate),
        sample.cores.map_or("null".to_owned(), number),
    )
}

fn number(value: f64) -> String {
    match value.is_finite() {
        true => format!("{value}"),
        false => "null".to_owned(),
    }
}

fn text(text: &str) -> String {
    let mut bytes = Vec::new();
    push_string(&mut bytes, text.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::histogram::Histogram;
    use crate::cli::bench::outcome::Better;
    use crate::cli::json::is_valid;

    #[test]
    fn the_document_is_json_whatever_was_found() {
        let mut histogram = Histogram::new();
        histogram.record(5);
        let mut outcome = Outcome {
            name: "a \"name\"".to_owned(),
            samples: vec![Sample::default(), Sample::default()],
            ..Outcome::default()
        };
        outcome.add("figure", f64::INFINITY, "/s", Better::Higher);
        outcome.set_latency(&histogram);
        let record = Record {
            broker: "b".to_owned(),
            round: 1,
            outcome,
        };
        let empty = Record {
            outcome: Outcome::default(),
            ..record.clone()
        };
        let text = document(&[record, empty]);
        assert!(is_valid(text.as_bytes()), "{text}");
        assert!(text.contains("\"p50\":5"));
        assert!(is_valid(document(&[]).as_bytes()));
    }
}
