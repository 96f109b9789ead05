//! How many deliveries a publisher waits for: a bound that follows what they take.

/// A fan-out that takes longer than this is too much to wait for.
const SLOW_MS: u64 = 500;
/// The bound is never lower.
const BOUND_MIN: u64 = 10;

/// The bound below which messages are delivered before their publish is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InlineBound {
    bound: u64,
    max: u64,
}

impl InlineBound {
    /// Starts at what the deployment allows.
    #[must_use]
    pub fn new(max: u64) -> Self {
        Self { bound: max, max }
    }

    /// Whether so many are delivered inline.
    #[must_use]
    pub fn takes(&self, deliveries: u64) -> bool {
        deliveries <= self.bound
    }

    /// Notes what a batch took: a slow one halves the bound, a fast one that was near it raises it.
    pub fn measured(&mut self, deliveries: u64, took_ms: u64) {
        if took_ms > SLOW_MS {
            let fitting = deliveries.min(self.bound) / 2;
            self.bound = fitting.max(BOUND_MIN).min(self.max);
        } else if took_ms <= SLOW_MS / 4 && deliveries.saturating_mul(2) >= self.bound {
            self.bound = self.bound.saturating_add(self.bound / 4).saturating_add(1).min(self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_batches_halve_it_and_fast_ones_raise_it() {
        let mut bound = InlineBound::new(200);
        assert!(bound.takes(200) && !bound.takes(201));
        bound.measured(200, 900);
        assert!(bound.takes(100) && !bound.takes(101));
        bound.measured(10, 5);
        assert!(!bound.takes(101));
        bound.measured(100, 50);
        assert!(bound.takes(126) && !bound.takes(127));
        for _ in 0..20 {
            bound.measured(200, 900);
        }
        assert!(bound.takes(10) && !bound.takes(11));
        for _ in 0..20 {
            bound.measured(200, 50);
        }
        assert!(bound.takes(200) && !bound.takes(201));
    }
}
