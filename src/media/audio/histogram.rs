//! How late packets come: the histogram that sets the playout delay.

/// Width of a bucket, in ms.
const BUCKET_MS: f32 = 5.0;
/// Number of buckets; later packets fall into the last.
const BUCKETS: usize = 120;
/// What remains of the past after each packet by default: half is forgotten after about 50 packets (1 s).
const FORGETTING: f32 = 0.986;

/// Distribution of the relative arrival delay (0 = as fast as the fastest of late), with forgetting.
#[derive(Debug, Clone)]
pub struct DelayHistogram {
    weights: Vec<f32>,
    forgetting: f32,
}

impl Default for DelayHistogram {
    fn default() -> Self {
        Self::new()
    }
}

impl DelayHistogram {
    /// Starts from a cautious guess of up to 20 ms.
    pub fn new() -> Self {
        Self::with_forgetting(FORGETTING)
    }

    /// As [`Self::new`], keeping `forgetting` (0 to 1) of the past at each packet.
    pub fn with_forgetting(forgetting: f32) -> Self {
        let mut weights = vec![0.0; BUCKETS];
        if let Some(w) = weights.get_mut(3) {
            *w = 1.0;
        }
        Self { weights, forgetting: forgetting.clamp(0.0, 1.0) }
    }

    /// Notes one packet's relative delay.
    pub fn add(&mut self, delay_ms: f32) {
        let bucket = ((delay_ms.max(0.0) / BUCKET_MS) as usize).min(BUCKETS - 1);
        for w in &mut self.weights {
            *w *= self.forgetting;
        }
        if let Some(w) = self.weights.get_mut(bucket) {
            *w += 1.0 - self.forgetting;
        }
    }

    /// The fastest packet of late is later by so many ms than it was: what is known counts from there on. Returns by how much
    /// that could be done, in ms.
    pub fn rebase(&mut self, later_ms: f32) -> f32 {
        let buckets = ((later_ms.max(0.0) / BUCKET_MS) as usize).min(BUCKETS);
        let faster: f32 = self.weights.drain(..buckets).sum();
        self.weights.resize(BUCKETS, 0.0);
        if let Some(first) = self.weights.first_mut() {
            *first += faster;
        }
        buckets as f32 * BUCKET_MS
    }

    /// The delay, in ms, that `share` (0 to 1) of the packets do not exceed.
    pub fn quantile_ms(&self, share: f32) -> f32 {
        let total: f32 = self.weights.iter().sum();
        let mut seen = 0.0;
        for (i, w) in self.weights.iter().enumerate() {
            seen += w;
            if seen >= total * share {
                // Within a bucket they are taken to lie evenly.
                let above = ((seen - total * share) / w.max(1e-9)).clamp(0.0, 1.0);
                return (i as f32 + 1.0 - above) * BUCKET_MS;
            }
        }
        BUCKETS as f32 * BUCKET_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_follows_and_forgets() {
        let mut h = DelayHistogram::new();
        for _ in 0..300 {
            h.add(1.0);
        }
        assert!((4.5..=5.0).contains(&h.quantile_ms(0.97)), "{}", h.quantile_ms(0.97));
        for i in 0..200 {
            h.add((i * 37 % 100) as f32);
        }
        assert!((90.0..=105.0).contains(&h.quantile_ms(0.97)), "{}", h.quantile_ms(0.97));
        for _ in 0..300 {
            h.add(1.0);
        }
        assert!(h.quantile_ms(0.97) <= 10.0);
        // The path got longer: what was late is in time.
        for _ in 0..300 {
            h.add(201.0);
        }
        assert_eq!(h.rebase(203.0), 200.0);
        assert!(h.quantile_ms(0.97) <= 5.0, "{}", h.quantile_ms(0.97));
    }
}
