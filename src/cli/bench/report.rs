//! All results as one HTML page with plots. It loads no other file.

use std::fmt::Write;

use super::compare::median;
use super::outcome::{Better, Record};
use super::table::number;

/// Size of a plot in pixels.
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 200.0;
/// Margins for the numbers at the axes.
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 24.0;
/// A colour for each broker. They can be told apart with colour blindness, too.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin:2.5rem 0 0}table{border-collapse:collapse;margin:.7rem 0}\
td,th{padding:.1rem .9rem .1rem 0;text-align:right;border-bottom:1px solid #e5e5e5;font-variant-numeric:tabular-nums}\
td:first-child,th:first-child{text-align:left}p{margin:.2rem 0}.wrong{color:#b00020;font-weight:600}svg{margin:.5rem 1rem 0 0;font:11px system-ui,sans-serif}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}td,th{border-color:#333}svg text{fill:#ddd}}";

/// A line in a plot.
struct Line<'a> {
    name: &'a str,
    points: Vec<(f64, f64)>,
}

/// Returns the page.
pub fn page(records: &[Record]) -> String {
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>tidegate bench</title>\
         <style>{STYLE}</style><h1>tidegate bench</h1>\n"
    );
    let mut names: Vec<&str> = Vec::new();
    for record in records {
        if !names.contains(&record.outcome.name.as_str()) {
            names.push(&record.outcome.name);
        }
    }
    for name in names {
        let of_it: Vec<Record> = records
            .iter()
            .filter(|record| record.outcome.name == name)
            .cloned()
            .collect();
        section(&mut page, name, &of_it);
    }
    page
}

fn section(page: &mut String, name: &str, records: &[Record]) {
    let mut brokers: Vec<&str> = Vec::new();
    for record in records {
        if !brokers.contains(&record.broker.as_str()) {
            brokers.push(&record.broker);
        }
    }
    let first = &records[0].outcome;
    let rounds = records.iter().map(|record| record.round).max().unwrap_or(1);
    let mut text = format!("<h2>{}</h2><p>{}", escape(name), escape(&first.what));
    if rounds > 1 {
        text += &format!("; medians of {rounds} rounds");
    }
    text += "</p><table><tr><th>";
    for broker in &brokers {
        text += &format!("<th>{}", escape(broker));
    }
    for metric in &first.metrics {
        let arrow = match metric.better {
            Better::Lower => " &#8595;",
            Better::Higher => " &#8593;",
            Better::Neither => "",
        };
        text += &format!(
            "\n<tr><td>{} {}{arrow}",
            escape(metric.name),
            escape(metric.unit)
        );
        for broker in &brokers {
            let value = median(records, broker, metric.name);
            text += &format!("<td>{}", value.map_or("-".to_owned(), number));
        }
    }
    text += "</table>\n";
    for record in records.iter().filter(|record| !record.outcome.is_clean()) {
        if let Some(wrong) = record.outcome.wrong() {
            let (broker, round) = (escape(&record.broker), record.round);
            text += &format!("<p class=wrong>{broker}, round {round}: {wrong}</p>\n");
        }
    }
    for record in records {
        for doubt in &record.outcome.doubts {
            let (broker, round) = (escape(&record.broker), record.round);
            let (about, what) = (doubt.about, escape(&doubt.what));
            text += &format!("<p class=wrong>{broker}, round {round}: void{about}: {what}</p>\n");
        }
    }
    page.push_str(&text);
    plots(page, &brokers, records);
}

/// Plots the samples of the last round and its latencies.
fn plots(page: &mut String, brokers: &[&str], records: &[Record]) {
    let last = |broker: &str| records.iter().rfind(|record| record.broker == broker);
    let lines = |points: &dyn Fn(&Record) -> Vec<(f64, f64)>| -> Vec<Line<'_>> {
        brokers
            .iter()
            .filter_map(|broker| {
                let points = points(last(broker)?);
                (points.len() > 1).then_some(Line {
                    name: broker,
                    points,
                })
            })
            .collect()
    };
    let rates = lines(&|record| {
        let samples = record.outcome.samples.iter();
        samples.map(|sample| (sample.at, sample.rate)).collect()
    });
    plot(page, "messages a second, by seconds", &rates, false, |x| {
        format!("{x:.1}")
    });
    let latencies = lines(&|record| {
        let curve = record.outcome.curve.iter();
        curve
            .map(|(share, nanoseconds)| (-(1.0 - share).log10(), *nanoseconds as f64 / 1000.0))
            .collect()
    });
    plot(
        page,
        "latency in microseconds, by share of messages",
        &latencies,
        true,
        |x| {
            // 0 stands for share 0, 1 for 90 %, 2 for 99 %.
            format!("{}", 100.0 - 10f64.powf(2.0 - x))
        },
    );
}

fn plot(
    page: &mut String,
    title: &str,
    lines: &[Line<'_>],
    log: bool,
    x_label: impl Fn(f64) -> String,
) {
    let all = || lines.iter().flat_map(|line| &line.points);
    if all().next().is_none() {
        return;
    }
    let max_x = all().map(|(x, _)| *x).fold(1e-9, f64::max);
    let max_y = all().map(|(_, y)| *y).fold(1.0, f64::max);
    let min_y = all().map(|(_, y)| y.max(1.0)).fold(f64::INFINITY, f64::min);
    let (low, high) = if log {
        (
            min_y.log10().floor(),
            max_y.log10().ceil().max(min_y.log10().floor() + 1.0),
        )
    } else {
        (0.0, max_y * 1.05)
    };
    let x_of = |x: f64| LEFT + x / max_x * (WIDTH - LEFT - 10.0);
    let y_of = |y: f64| {
        let y = if log { y.max(1.0).log10() } else { y };
        let share = (y - low) / (high - low);
        HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - 24.0)
    };
    let mut svg = format!(
        "<svg width={WIDTH} height={HEIGHT} viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"{title}\"><text x={LEFT} y=12>{title}</text>"
    );
    let ticks = if log { (high - low) as u32 } else { 4 };
    for tick in 0..=ticks {
        let at = low + (high - low) * f64::from(tick) / f64::from(ticks);
        let value = if log { 10f64.powf(at) } else { at };
        let y = y_of(value);
        let _ = write!(
            svg,
            "<path d=\"M{LEFT} {y:.1}H{:.1}\" stroke=\"#9995\"/><text x={:.1} y={:.1} text-anchor=end>{}</text>",
            WIDTH - 10.0,
            LEFT - 6.0,
            y + 4.0,
            number(value)
        );
    }
    for tick in 0..=4 {
        let value = max_x * f64::from(tick) / 4.0;
        let _ = write!(
            svg,
            "<text x={:.1} y={} text-anchor=middle>{}</text>",
            x_of(value).min(WIDTH - 18.0),
            HEIGHT - 6.0,
            x_label(value)
        );
    }
    for (at, line) in lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y)))
            .collect();
        let _ = write!(
            svg,
            "<polyline fill=none stroke=\"{colour}\" stroke-width=1.6 points=\"{}\"/><text x={:.1} y={} text-anchor=end style=\"fill:{colour}\">{}</text>",
            points.join(" "),
            WIDTH - 10.0,
            12 + 13 * at,
            escape(line.name)
        );
    }
    svg += "</svg>\n";
    page.push_str(&svg);
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::histogram::Histogram;
    use crate::cli::bench::outcome::{Outcome, Sample};

    #[test]
    fn the_page_has_a_table_and_plots_and_asks_for_nothing_else() {
        let mut histogram = Histogram::new();
        (1..1000).for_each(|value| histogram.record(value * 1000));
        let mut outcome = Outcome {
            name: "pairs <1>".to_owned(),
            samples: (0..5)
                .map(|at| Sample {
                    at: f64::from(at),
                    rate: 10.0,
                    ..Sample::default()
                })
                .collect(),
            ..Outcome::default()
        };
        outcome.add("delivered", 1234.0, "/s", Better::Higher);
        outcome.set_latency(&histogram);
        outcome.faults.lost = 1;
        let record = |broker: &str| Record {
            broker: broker.to_owned(),
            round: 1,
            outcome: outcome.clone(),
        };
        let page = page(&[record("a"), record("b&c")]);
        assert!(page.contains("pairs &lt;1&gt;") && page.contains("<th>b&amp;c"));
        assert!(page.contains("<td>1,234"));
        assert_eq!(page.matches("<svg").count(), 2);
        assert_eq!(page.matches("<polyline").count(), 4);
        assert!(page.contains("1 lost"));
        assert!(!page.contains("http") && !page.contains("NaN") && !page.contains("inf"));
    }

    #[test]
    fn a_scenario_without_course_and_latencies_has_no_plots() {
        let record = Record {
            broker: "a".to_owned(),
            round: 1,
            outcome: Outcome::default(),
        };
        assert!(!page(&[record]).contains("<svg"));
    }
}
