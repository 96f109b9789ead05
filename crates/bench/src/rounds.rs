//! Two sides measured in turns: A B A B ...
//!
//! The machine's speed drifts, and other programs come and go. Both sides of a round meet about
//! the same machine, so the ratio is taken round by round and its median reported, beside the
//! medians of the absolute numbers.
//!
//! A round waits for other programs to leave the machine alone, up to a limit, and one that they
//! disturbed is measured again, up to [`MEASURED_PER_ROUND`] times as many rounds as asked for; the
//! quietest ones count. What is left out is chosen by what others did, never by the result. A first
//! round of both sides is thrown away: it gets code compiled and caches filled.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::host::Host;
use crate::load::Measured;
use crate::system;

/// Cores that others may use in a quiet round.
const QUIET_CORES: f64 = 0.25;
/// Rounds that are measured at most for each that counts.
const MEASURED_PER_ROUND: u32 = 3;

/// How often it is looked whether the machine is quiet.
const LOOK: Duration = Duration::from_millis(250);

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Rounds that count.
    pub(crate) rounds: u32,
    /// Time of a round that counts.
    pub(crate) counted: Duration,
    /// Longest wait for a quiet machine before a round.
    pub(crate) patience: Duration,
    /// No further round begins after this time, once there is one that counts.
    pub(crate) time_max: Duration,
}

impl Settings {
    /// Rounds that are measured at most, with the one that is thrown away.
    pub(crate) fn rounds_max(&self) -> u32 {
        self.rounds.saturating_mul(MEASURED_PER_ROUND).saturating_add(1)
    }
}

/// One side of one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Requests a second.
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    /// CPU time of workerd a request, in microseconds; it hardly depends on the machine's load.
    pub(crate) cpu_us: f64,
    /// Cores that programs took which have no part in the measurement.
    pub(crate) foreign_cores: f64,
}

/// All rounds of both sides.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) ours: Vec<Sample>,
    pub(crate) other: Vec<Sample>,
}

/// Measures both sides in turns. Each closure gets the number of the round.
///
/// # Errors
/// The first error of a closure.
pub(crate) fn interleave(
    settings: &Settings,
    (host, mut ours): (&Host, impl FnMut(u32) -> Result<Measured>),
    (other_host, mut other): (&Host, impl FnMut(u32) -> Result<Measured>),
) -> Result<Pair> {
    let noise = |(ours, other): &(Sample, Sample)| ours.foreign_cores.max(other.foreign_cores);
    let both = |round| Ok((sample(host, || ours(round))?, sample(other_host, || other(round))?));
    let (ours, other) = quietest(settings, noise, both)?.into_iter().unzip();
    Ok(Pair { ours, other })
}

/// Measures one side by itself: what has no ceiling. The closure gets the number of the round.
///
/// # Errors
/// The first error of the closure.
pub(crate) fn alone(
    settings: &Settings,
    host: &Host,
    mut ours: impl FnMut(u32) -> Result<Measured>,
) -> Result<Vec<Sample>> {
    let one = |round| sample(host, || ours(round));
    quietest(settings, |sample: &Sample| sample.foreign_cores, one)
}

/// Measures rounds until there are enough quiet ones; returns those that count.
fn quietest<T>(
    settings: &Settings,
    noise: impl Fn(&T) -> f64,
    mut measure: impl FnMut(u32) -> Result<T>,
) -> Result<Vec<T>> {
    let mut all: Vec<T> = Vec::new();
    let wanted = usize::try_from(settings.rounds).unwrap_or(usize::MAX);
    let started = Instant::now();
    for round in 0..settings.rounds_max() {
        let quiet = all.iter().filter(|one| noise(one) <= QUIET_CORES).count();
        if quiet >= wanted || (!all.is_empty() && started.elapsed() > settings.time_max) {
            break;
        }
        wait_for_quiet(settings.patience);
        let measured = measure(round)?;
        if round > 0 {
            all.push(measured);
        }
    }
    all.sort_by(|a, b| noise(a).total_cmp(&noise(b)));
    all.truncate(wanted);
    Ok(all)
}

/// Returns when the machine idles, or when patience ends.
fn wait_for_quiet(patience: Duration) {
    let started = Instant::now();
    while started.elapsed() < patience {
        let before = system::machine_cpu_time().unwrap_or_default();
        thread::sleep(LOOK);
        let used = system::machine_cpu_time().unwrap_or_default().saturating_sub(before);
        if used.as_secs_f64() <= QUIET_CORES * LOOK.as_secs_f64() {
            break;
        }
    }
}

fn sample(host: &Host, measure: impl FnOnce() -> Result<Measured>) -> Result<Sample> {
    let own = std::process::id();
    let times = || {
        let server = system::cpu_time(host.workerd()).unwrap_or_default();
        let client = system::cpu_time(own).unwrap_or_default();
        (server, client, system::machine_cpu_time().unwrap_or_default())
    };
    let started = Instant::now();
    let before = times();
    let measured = measure()?;
    let after = times();
    let elapsed = started.elapsed().as_secs_f64();
    let seconds = |after: Duration, before: Duration| after.saturating_sub(before).as_secs_f64();
    let server = seconds(after.0, before.0);
    let foreign = seconds(after.2, before.2) - server - seconds(after.1, before.1);
    Ok(Sample {
        rate: measured.rate(),
        p50_ms: measured.latency_ms(0.5),
        p90_ms: measured.latency_ms(0.9),
        p99_ms: measured.latency_ms(0.99),
        cpu_us: measured.server_cpu.map_or(server, |cpu| cpu.as_secs_f64()) * 1e6
            / (measured.answered as f64).max(1.0),
        foreign_cores: (foreign / elapsed).max(0.0),
    })
}

impl Pair {
    /// Median over the rounds of our side.
    pub(crate) fn ours(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        median(self.ours.iter().map(of))
    }

    /// Median over the rounds of the other side.
    pub(crate) fn other(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        median(self.other.iter().map(of))
    }

    /// Median of the rounds' ratios, ours to the other.
    pub(crate) fn ratio(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        median(self.ours.iter().zip(&self.other).map(|(ours, other)| of(ours) / of(other)))
    }

    /// One line for people.
    pub(crate) fn summary(&self) -> String {
        let all = self.ours.iter().chain(&self.other);
        let foreign = median(all.map(|sample| sample.foreign_cores));
        let ratios = self.ours.iter().zip(&self.other).map(|(ours, other)| ours.rate / other.rate);
        let ratios: Vec<String> = ratios.map(|ratio| format!("{ratio:.2}")).collect();
        let cpu = 1.0 / self.ratio(|sample| sample.cpu_us);
        format!(
            "ours    {}\n    ceiling {}\n    rate ratios by round {}; by CPU time {cpu:.2}; \
             others took {foreign:.2} cores",
            summary(&self.ours),
            summary(&self.other),
            ratios.join(" ")
        )
    }
}

/// The rounds of one side, in one line for people.
pub(crate) fn summary(samples: &[Sample]) -> String {
    let of = |of: fn(&Sample) -> f64| median(samples.iter().map(of));
    format!(
        "{:.0}/s p50 {:.2} p90 {:.2} p99 {:.2} ms, workerd {:.0} us CPU a request",
        of(|s| s.rate),
        of(|s| s.p50_ms),
        of(|s| s.p90_ms),
        of(|s| s.p99_ms),
        of(|s| s.cpu_us)
    )
}

/// The middle value; 0 of nothing.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let at = |index: usize| values.get(index).copied().unwrap_or_default();
    if values.len() % 2 == 1 {
        at(middle)
    } else {
        (at(middle.saturating_sub(1)) + at(middle)) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median([].into_iter()), 0.0);
    }
}
