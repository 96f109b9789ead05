//! Results: one line a scenario for people, one object a scenario for machines.

use std::fmt;

use serde::Serialize;

/// Which section of docs/performance.md tells what was tried for a target that is not met. The
/// one place to edit when a section appears or a target is met at last.
const EXPLAINED: &[(&str, &str)] = &[
    ("append-16", "appends"),
    ("append-64", "appends"),
    ("append-256", "appends"),
    ("append-producer-64", "producers"),
    ("read-9kb", "reads"),
    ("read-1mib", "reads"),
    ("read-cold", "cold-reads"),
    ("length-1m-random", "cold-reads"),
    ("length-10m-random", "cold-reads"),
    ("rotate-p99", "rotation"),
    ("live-long-poll-1", "live-readers"),
    ("live-long-poll-100", "live-readers"),
    ("live-long-poll-1000", "live-readers"),
    ("live-long-poll-5000", "live-readers"),
    ("live-sse-1", "live-readers"),
    ("live-sse-100", "live-readers"),
    ("live-sse-1000", "live-readers"),
    ("live-sse-5000", "live-readers"),
    ("live-ws-1", "live-readers"),
    ("live-ws-100", "live-readers"),
    ("live-ws-1000", "live-readers"),
    ("live-ws-5000", "live-readers"),
    ("memory-reader-sse-slow", "live-readers"),
    ("memory-reader-ws-slow", "live-readers"),
    ("ws-append-1", "appends-over-a-websocket"),
    ("ws-append-50", "appends-over-a-websocket"),
    ("publish-150", "fan-out"),
    ("publish-burst", "fan-out"),
    ("subscribe", "fan-out"),
    ("cost-delivery", "fan-out"),
    ("cost-delivery-burst", "fan-out"),
    ("wasm-start", "start"),
];

/// What a scenario is meant to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// Ours divided by the ceiling.
    RatioMin(f64),
    RatioMax(f64),
    ValueMin(f64),
    ValueMax(f64),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RatioMin(ratio) => write!(f, "ratio >= {ratio:.2}"),
            Self::RatioMax(ratio) => write!(f, "ratio <= {ratio:.2}"),
            Self::ValueMin(value) => write!(f, ">= {value}"),
            Self::ValueMax(value) => write!(f, "<= {value}"),
        }
    }
}

/// The result of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) ceiling: Option<f64>,
    pub(crate) ratio: Option<f64>,
    pub(crate) target: Option<Target>,
}

#[derive(Serialize)]
struct Scenario<'a> {
    name: &'a str,
    value: f64,
    unit: &'a str,
    ceiling: Option<f64>,
    ratio: Option<f64>,
    target: Option<String>,
    met: Option<bool>,
    explained: Option<&'a str>,
}

#[derive(Serialize)]
struct Report<'a> {
    scenarios: Vec<Scenario<'a>>,
}

impl Outcome {
    /// Whether the target is met, if there is one.
    pub(crate) fn met(&self) -> Option<bool> {
        Some(match self.target? {
            Target::RatioMin(min) => self.ratio? >= min,
            Target::RatioMax(max) => self.ratio? <= max,
            Target::ValueMin(min) => self.value >= min,
            Target::ValueMax(max) => self.value <= max,
        })
    }

    fn explained(&self) -> Option<&'static str> {
        if self.met() != Some(false) {
            return None;
        }
        EXPLAINED.iter().find(|(name, _)| *name == self.name).map(|(_, section)| *section)
    }
}

/// The outcomes as JSON.
///
/// # Errors
/// A number that JSON does not have.
pub(crate) fn json(outcomes: &[Outcome]) -> serde_json::Result<String> {
    let scenarios = outcomes.iter().map(|outcome| Scenario {
        name: &outcome.name,
        value: rounded(outcome.value),
        unit: outcome.unit,
        ceiling: outcome.ceiling.map(rounded),
        ratio: outcome.ratio.map(rounded),
        target: outcome.target.map(|target| target.to_string()),
        met: outcome.met(),
        explained: outcome.explained(),
    });
    let mut text = serde_json::to_string_pretty(&Report { scenarios: scenarios.collect() })?;
    text.push('\n');
    Ok(text)
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The outcomes as a table.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut lines = vec![line(["scenario", "value", "unit", "ceiling", "ratio", "target", "met"])];
    for outcome in outcomes {
        let met = match outcome.met() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        lines.push(line([
            &outcome.name,
            &number(outcome.value),
            outcome.unit,
            &outcome.ceiling.map(number).unwrap_or_default(),
            &outcome.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            &outcome.target.map(|target| target.to_string()).unwrap_or_default(),
            met,
        ]));
    }
    lines.join("\n")
}

fn line([name, value, unit, ceiling, ratio, target, met]: [&str; 7]) -> String {
    let line =
        format!("{name:<24}{value:>10} {unit:<18}{ceiling:>10}{ratio:>8}  {target:<16}{met}");
    line.trim_end().to_owned()
}

fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(target: Option<Target>) -> Outcome {
        let name = "append-1".to_owned();
        let (ceiling, ratio) = (Some(2.0), Some(0.5));
        Outcome { name, value: 1.0, unit: "ms", ceiling, ratio, target }
    }

    #[test]
    fn targets_bound_the_ratio_or_the_value() {
        for (target, met) in [
            (None, None),
            (Some(Target::RatioMin(0.5)), Some(true)),
            (Some(Target::RatioMax(0.4)), Some(false)),
            (Some(Target::ValueMin(2.0)), Some(false)),
            (Some(Target::ValueMax(1.0)), Some(true)),
        ] {
            assert_eq!(outcome(target).met(), met, "{target:?}");
        }
    }

    #[test]
    fn json_has_every_field() {
        let text = json(&[outcome(Some(Target::RatioMax(1.3)))]).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({"scenarios": [{
            "name": "append-1", "value": 1.0, "unit": "ms", "ceiling": 2.0, "ratio": 0.5,
            "target": "ratio <= 1.30", "met": true, "explained": null
        }]});
        assert_eq!(value, expected);
    }
}
