//! A histogram of latencies in 58 KB. The width of a bucket grows with its value and is less than 1
//! % of it.

/// Significant bits of a value: 128 buckets between a power of two and the next.
const KEPT_BITS: u32 = 7;
const BUCKETS: usize = ((64 - KEPT_BITS as usize) << KEPT_BITS) + (1 << KEPT_BITS);

/// Counts of recorded values, exact to 1 %.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

/// A summary of a histogram, in the recorded unit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Number of values.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// Maximum, exact.
    pub max: u64,
}

impl Histogram {
    /// Creates an empty histogram.
    pub fn new() -> Histogram {
        Histogram {
            counts: vec![0; BUCKETS],
            count: 0,
            sum: 0,
            max: 0,
        }
    }

    /// Records a value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.count += 1;
        self.sum += u128::from(value);
        self.max = self.max.max(value);
    }

    /// Adds all values of another histogram.
    pub fn add(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// Removes all values.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        (self.count, self.sum, self.max) = (0, 0, 0);
    }

    /// Returns the value that this share (0 to 1) of all values does not exceed. 0 if there are
    /// none.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return highest(index).min(self.max);
            }
        }
        self.max
    }

    /// Returns the usual figures.
    pub fn summary(&self) -> Summary {
        Summary {
            count: self.count,
            mean: if self.count == 0 {
                0.0
            } else {
                self.sum as f64 / self.count as f64
            },
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
            p999: self.quantile(0.999),
            max: self.max,
        }
    }

    /// Returns points of the quantile curve for a plot: share and value. They are dense towards 1.
    pub fn curve(&self) -> Vec<(f64, u64)> {
        if self.count == 0 {
            return Vec::new();
        }
        let steps = (0..=48).map(|step| 1.0 - 10f64.powf(-f64::from(step) / 12.0));
        steps.map(|share| (share, self.quantile(share))).collect()
    }
}

#[inline]
fn bucket(value: u64) -> usize {
    let exponent = (63 - (value | 1 << KEPT_BITS).leading_zeros()) - KEPT_BITS;
    ((exponent as usize) << KEPT_BITS) + (value >> exponent) as usize
}

/// Returns the highest value of a bucket.
fn highest(bucket: usize) -> u64 {
    let exponent = (bucket >> KEPT_BITS).saturating_sub(1);
    let kept = (bucket - (exponent << KEPT_BITS)) as u128;
    (((kept + 1) << exponent) - 1) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_values_are_exact_and_the_largest_value_has_a_bucket() {
        for value in 0..256 {
            assert_eq!(highest(bucket(value)), value);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(highest(BUCKETS - 1), u64::MAX);
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::new();
        for value in 1..=100 {
            histogram.record(value);
        }
        let summary = histogram.summary();
        assert_eq!((summary.p50, summary.p90, summary.p99), (50, 90, 99));
        assert_eq!((summary.p999, summary.max, summary.count), (100, 100, 100));
        assert!((summary.mean - 50.5).abs() < 1e-9);
        assert_eq!((histogram.quantile(0.0), histogram.quantile(1.0)), (1, 100));
    }

    #[test]
    fn two_are_added_as_if_all_had_been_recorded_in_one() {
        let (mut one, mut other) = (Histogram::new(), Histogram::new());
        (1..=50).for_each(|value| one.record(value));
        (51..=100).for_each(|value| other.record(value));
        one.add(&other);
        let summary = one.summary();
        assert_eq!((summary.count, summary.p50, summary.max), (100, 50, 100));
        assert!((summary.mean - 50.5).abs() < 1e-9);
    }

    #[test]
    fn an_empty_one_has_nothing_to_tell() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.summary(), Summary::default());
        assert!(histogram.curve().is_empty());
        histogram.record(7);
        histogram.clear();
        assert_eq!(histogram.summary(), Summary::default());
    }

    proptest! {
        #[test]
        fn a_bucket_is_less_than_one_percent_wide(value: u64) {
            let told = highest(bucket(value));
            prop_assert!(told >= value);
            prop_assert!((told - value) as f64 <= value as f64 / 128.0 + 1.0);
            prop_assert!(value == 0 || bucket(value - 1) <= bucket(value));
        }
    }
}
