//! The measured times, in memory that does not grow with their number.

/// Times of at least so many nanoseconds are listed; shorter ones are counted.
const COUNTED: usize = 1 << 16;
/// Room for the list: it takes its memory at the start.
const LISTED: usize = 1 << 16;

/// The measurements of a thread.
#[derive(Default)]
pub(crate) struct Latencies {
    /// Nanoseconds of hits in memory.
    pub(crate) hot: Histogram,
    pub(crate) twin: Histogram,
    pub(crate) operations: u64,
}

/// Times in nanoseconds. Each time is exact.
pub(crate) struct Histogram {
    /// How often a time was measured, by the time.
    counts: Vec<u32>,
    longer: Vec<u64>,
}

impl Latencies {
    pub(crate) fn with(mut self, other: &Self) -> Self {
        self.hot.join(&other.hot);
        self.twin.join(&other.twin);
        self.operations += other.operations;
        self
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; COUNTED], longer: Vec::with_capacity(LISTED) }
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, nanos: u64) {
        match self.counts.get_mut(nanos as usize) {
            Some(count) => *count += 1,
            None => self.longer.push(nanos),
        }
    }

    fn join(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.longer.extend(&other.longer);
    }

    /// The time that this share of the times does not exceed; 0 if there is none.
    pub(crate) fn percentile(&self, share: f64) -> u64 {
        let counted: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        let times = counted + self.longer.len() as u64;
        let mut rank = (times.saturating_sub(1) as f64 * share) as u64;
        for (nanos, count) in self.counts.iter().enumerate() {
            match rank.checked_sub(u64::from(*count)) {
                Some(rest) => rank = rest,
                None => return nanos as u64,
            }
        }
        let mut longer = self.longer.clone();
        longer.sort_unstable();
        longer.get(rank as usize).copied().unwrap_or(0)
    }
}
