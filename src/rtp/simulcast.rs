//! Pictures in several layers: how many, how large, what each is good for, and how a sender divides its rate.
//!
//! Both ends of our own go by these figures: who sends decides with them which layers it can pay for, the host which one
//! a receiver can take.

/// Names of the layers on the wire, the lowest first; a picture with fewer has the last ones.
pub const RIDS: [&str; 3] = ["q", "h", "f"];

/// A picture of 1280x720 makes use of this much, in bit/s …
const REFERENCE_BPS: f64 = 2_500_000.0;
/// … and has this many pixels.
const REFERENCE_PIXELS: f64 = 1280.0 * 720.0;
/// Half the pixels do not do with half the rate.
const EXPONENT: f64 = 0.75;
/// Below this share of what it makes use of a layer looks worse than the next lower one.
const LEAST_SHARE: f64 = 0.28;
/// This share is kept for lower layers before a higher one gets anything.
const GOOD_SHARE: f64 = 0.6;
/// A layer that is sent goes on with less than one needs to begin: a change is seen more than a coarser picture.
const STAY_SHARE: f64 = 0.7;
/// A tile may be this much larger than the picture in it, in percent, before the next layer is taken.
const ENLARGED_PERCENT: u64 = 135;

/// How many layers a picture of this size is worth: 3 from 960x540, 2 from 480x270.
pub fn layers_for((width, height): (u32, u32)) -> usize {
    match u64::from(width) * u64::from(height) {
        518_400.. => 3,
        129_600.. => 2,
        _ => 1,
    }
}

/// By what width and height of layer `index` of `count` are divided.
pub fn divisor(index: usize, count: usize) -> u32 {
    1 << count.saturating_sub(index + 1).min(4)
}

/// Size of layer `index` of `count`.
pub fn layer_size((width, height): (u32, u32), index: usize, count: usize) -> (u32, u32) {
    let by = divisor(index, count);
    (width / by, height / by)
}

/// Name of the layer that a picture of `width` is, where the whole one has size `full` and is worth several.
pub fn layer_name(full: (u32, u32), width: u32) -> Option<&'static str> {
    let count = layers_for(full);
    let index = (0..count).find(|index| count > 1 && layer_size(full, *index, count).0.abs_diff(width) <= 1)?;
    RIDS.get(RIDS.len().saturating_sub(count) + index).copied()
}

/// The most that a picture of this size makes use of, in bit/s.
pub fn most_bps((width, height): (u32, u32)) -> u64 {
    let pixels = f64::from(width) * f64::from(height);
    (REFERENCE_BPS * (pixels / REFERENCE_PIXELS).powf(EXPONENT)) as u64
}

/// The most that a sender of a picture in `count` layers makes use of, in bit/s.
pub fn useful_bps(full: (u32, u32), count: usize) -> u64 {
    let most = |index: usize| most_bps(layer_size(full, index, count)) as f64;
    let lower: f64 = (0..count.saturating_sub(1)).map(|index| most(index) * GOOD_SHARE).sum();
    most_bps(full) + lower as u64
}

/// Leaves out the highest `dropped` layers; who wants them gets the highest that is left. Modifies what is `wanted` of each.
pub fn leave_out(wanted: &mut [u64], dropped: usize, full: (u32, u32)) {
    let count = wanted.len();
    let top = count.saturating_sub(dropped + 1);
    let asked = wanted.iter_mut().skip(top + 1).map(std::mem::take).max().unwrap_or(0);
    if let Some(slot) = wanted.get_mut(top) {
        *slot = (*slot).max(asked.min(most_bps(layer_size(full, top, count))));
    }
}

/// The least at which it is better than the next lower layer, in bit/s.
pub fn least_bps(size: (u32, u32)) -> u64 {
    (most_bps(size) as f64 * LEAST_SHARE) as u64
}

/// The lowest of `count` layers that fills a tile, given the size of the highest.
pub fn layer_for_tile(tile: (u32, u32), full: (u32, u32), count: usize) -> usize {
    let fills = |index: &usize| {
        let (width, height) = layer_size(full, *index, count);
        let large = |layer: u32, tile: u32| u64::from(layer) * ENLARGED_PERCENT >= u64::from(tile) * 100;
        // The picture is fitted into the tile: one of the two is enough.
        large(width, tile.0) || large(height, tile.1)
    };
    (0..count).find(fills).unwrap_or(count.saturating_sub(1))
}

/// Divides a sender's rate: lower layers first, the highest gets the rest.
///
/// `wanted` is the most that anybody takes of each layer, 0 for nothing; `sent` says which layers are sent now. A layer
/// that cannot be paid for gives way to the next lower one, wanted or not. `None` is not sent.
pub fn divide(total_bps: u64, wanted: &[u64], sent: &[bool], full: (u32, u32)) -> Vec<Option<u64>> {
    let count = wanted.len();
    let most = |index: usize| most_bps(layer_size(full, index, count));
    let mut wanted = wanted.to_vec();
    let mut rates = vec![None; count];
    while let Some(top) = wanted.iter().rposition(|bps| *bps > 0) {
        let good = |(index, bps): (usize, &u64)| (*bps).min((most(index) as f64 * GOOD_SHARE) as u64);
        let lower: u64 = wanted.iter().enumerate().take(top).map(good).sum();
        let rest = total_bps.saturating_sub(lower);
        let stay = if sent.get(top).copied().unwrap_or(false) { STAY_SHARE } else { 1.0 };
        let least = least_bps(layer_size(full, top, count)) as f64 * stay;
        let asked = wanted.get(top).copied().unwrap_or(0);
        if top > 0 && ((rest as f64) < least || (asked as f64) < least) {
            if let Some(slot) = wanted.get_mut(top) {
                *slot = 0;
            }
            if let Some(slot) = wanted.get_mut(top - 1) {
                *slot = (*slot).max(asked);
            }
            continue;
        }
        let mut left = total_bps;
        for index in 0..=top {
            let asked = wanted.get(index).copied().unwrap_or(0);
            if asked == 0 {
                continue;
            }
            let rate = if index == top { left.min(asked) } else { good((index, &asked)).min(left) };
            left -= rate;
            if let Some(slot) = rates.get_mut(index) {
                *slot = Some(rate);
            }
        }
        // What the highest does not take makes the lower ones better.
        for (index, rate) in rates.iter_mut().enumerate().take(top).rev() {
            if let Some(rate) = rate {
                let more = wanted.get(index).copied().unwrap_or(0).min(most(index)).saturating_sub(*rate).min(left);
                *rate += more;
                left -= more;
            }
        }
        break;
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HD: (u32, u32) = (1280, 720);
    const ALL: u64 = 20_000_000;

    #[test]
    fn sizes_and_tiles() {
        assert_eq!([HD, (960, 540), (640, 360), (480, 270), (320, 180)].map(layers_for), [3, 3, 2, 2, 1]);
        assert_eq!([0, 1, 2].map(|index| layer_size(HD, index, 3)), [(320, 180), (640, 360), (1280, 720)]);
        for (tile, layer) in
            [((160, 90), 0), ((320, 180), 0), ((432, 243), 0), ((440, 250), 1), ((640, 480), 1), ((1920, 1080), 2)]
        {
            assert_eq!(layer_for_tile(tile, HD, 3), layer, "{tile:?}");
        }
        assert_eq!(layer_for_tile((300, 300), (640, 360), 2), 0);
        let names = [1280, 640, 320, 480].map(|width| layer_name(HD, width));
        assert_eq!(names, [Some("f"), Some("h"), Some("q"), None]);
        assert_eq!((layer_name((640, 360), 320), layer_name((320, 180), 320)), (Some("h"), None));
        assert_eq!(layer_for_tile((4000, 100), HD, 1), 0);
    }

    #[test]
    fn one_viewer_costs_one_layer() {
        assert_eq!(divide(2_000_000, &[0, 0, ALL], &[false; 3], HD), [None, None, Some(2_000_000)]);
        assert_eq!(divide(2_000_000, &[0, 0, 900_000], &[false; 3], HD), [None, None, Some(900_000)]);
        // What cannot be paid for gives way, although nobody asked for what comes instead.
        assert_eq!(divide(400_000, &[0, 0, ALL], &[false; 3], HD), [None, Some(400_000), None]);
        assert_eq!(divide(100_000, &[0, 0, ALL], &[false; 3], HD), [Some(100_000), None, None]);
        assert_eq!(divide(2_000_000, &[0, 0, 0], &[true; 3], HD), [None, None, None]);
    }

    #[test]
    fn a_layer_that_is_left_out_is_replaced_by_the_next_one() {
        let h = most_bps((640, 360));
        for (wanted, dropped, left) in [
            ([0, 0, ALL], 1, [0, h, 0]),
            ([5, 7, ALL], 1, [5, h, 0]),
            ([5, 7, 0], 1, [5, 7, 0]),
            ([0, 0, 90], 2, [90, 0, 0]),
            ([1, 2, 3], 0, [1, 2, 3]),
        ] {
            let mut now = wanted;
            leave_out(&mut now, dropped, HD);
            assert_eq!(now, left, "{wanted:?} without {dropped}");
        }
        assert!((3_100_000..3_300_000).contains(&useful_bps(HD, 3)) && useful_bps(HD, 1) == most_bps(HD));
    }

    #[test]
    fn lower_layers_come_first() {
        let rates = divide(2_500_000, &[ALL, ALL, ALL], &[false; 3], HD);
        let [Some(q), Some(h), Some(f)] = rates[..] else { panic!("{rates:?}") };
        assert!((150_000..250_000).contains(&q) && (450_000..600_000).contains(&h) && f > 1_500_000, "{rates:?}");
        let rates = divide(900_000, &[ALL, 0, ALL], &[false; 3], HD);
        assert!(rates[0].is_some_and(|q| q > 150_000) && rates[2].is_some_and(|f| f >= 700_000), "{rates:?}");
        let rates = divide(800_000, &[ALL, 0, ALL], &[false; 3], HD);
        assert!(rates[0].is_some() && rates[1].is_some() && rates[2].is_none(), "{rates:?}");
        // A layer that is on stays a little longer.
        let rates = divide(800_000, &[ALL, 0, ALL], &[true, false, true], HD);
        assert!(rates[2].is_some(), "{rates:?}");
    }

    proptest! {
        #[test]
        fn nothing_is_spent_twice(
            total in 0u64..5_000_000,
            wanted in prop::collection::vec(prop_oneof![Just(0u64), 1u64..6_000_000], 1..4),
            sent in prop::collection::vec(any::<bool>(), 3),
        ) {
            let rates = divide(total, &wanted, &sent, HD);
            prop_assert_eq!(rates.len(), wanted.len());
            prop_assert!(rates.iter().flatten().sum::<u64>() <= total);
            prop_assert_eq!(rates.iter().any(Option::is_some), wanted.iter().any(|bps| *bps > 0));
            let highest = wanted.iter().rposition(|bps| *bps > 0);
            prop_assert!(rates.iter().rposition(Option::is_some) <= highest, "nothing above what anybody wants");
        }
    }
}
