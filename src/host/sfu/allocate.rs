//! What a receiver gets of what it can take: who speaks comes first, then whoever is drawn largest.
//!
//! Sound is not in it: it is small, is sent always, and what it takes is taken off the estimate before.

use crate::rtp::simulcast::{layer_for_tile, layer_size, least_bps, most_bps};

/// Going up needs this much more than the layer takes, in percent; staying on it so much less.
const UP_PERCENT: u64 = 110;
const STAY_PERCENT: u64 = 92;
/// What a layer is reckoned to take above its last measured rate, in percent.
const MARGIN_PERCENT: u64 = 115;
/// Less than this shows nothing.
const LEAST_PICTURE_BPS: u64 = 40_000;
/// A picture without layers is not pressed below this.
const LOWEST_BPS: u64 = 300_000;
/// And is taken to be able to grow to at least this.
const GROWS_TO_BPS: u64 = 1_000_000;

/// A layer as it stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LayerState {
    /// Its rate in bit/s while it is sent.
    pub(super) live_bps: Option<u64>,
    /// The most that another receiver gets it at, 0 if no other one does.
    pub(super) others_bps: u64,
}

/// One picture that a receiver might get.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    /// Its publisher is speaking.
    pub(super) speaks: bool,
    /// Size of its tile, `None` where the receiver does not tell, zero for a hidden one.
    pub(super) tile: Option<(u32, u32)>,
    /// Size of the whole picture.
    pub(super) full: (u32, u32),
    /// Its layers, the lowest first.
    pub(super) layers: Vec<LayerState>,
    /// What was chosen last.
    pub(super) before: Option<usize>,
    /// It may get more than last time.
    pub(super) may_rise: bool,
    /// What the receiver said about this leg alone, in bit/s.
    pub(super) own_bps: Option<u64>,
}

/// What it gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// The layer; `None` for nothing.
    pub(super) layer: Option<usize>,
    /// The rate up to which it may take it, in bit/s.
    pub(super) share_bps: u64,
}

impl Wish {
    /// The highest layer that the tile makes use of; `None` for a hidden one.
    pub(super) fn highest(&self) -> Option<usize> {
        let count = self.layers.len();
        match self.tile {
            Some((0, _) | (_, 0)) => None,
            Some(tile) => Some(layer_for_tile(tile, self.full, count)),
            None => count.checked_sub(1),
        }
    }

    fn layered(&self) -> bool {
        self.layers.len() > 1
    }

    fn size(&self, layer: usize) -> (u32, u32) {
        layer_size(self.full, layer, self.layers.len())
    }

    /// What a layer makes use of at most.
    fn most(&self, layer: usize) -> u64 {
        if self.layered() {
            return most_bps(self.size(layer));
        }
        let live = self.layers.first().and_then(|layer| layer.live_bps).unwrap_or(0);
        (live * 2).max(GROWS_TO_BPS)
    }

    /// What a layer takes. Whoever is alone on it gets it at any rate at which it is worth having.
    fn takes(&self, layer: usize) -> u64 {
        if !self.layered() {
            return LOWEST_BPS;
        }
        let least = if layer == 0 { 0 } else { least_bps(self.size(layer)) };
        let Some(state) = self.layers.get(layer) else { return least };
        if state.others_bps == 0 {
            return if layer == 0 { self.most(0) / 2 } else { least };
        }
        let measured = state.live_bps.map_or(u64::MAX, |live| live * MARGIN_PERCENT / 100);
        state.others_bps.min(measured).min(self.most(layer)).max(least)
    }

    /// Whether a layer can be had for `bps`, given what was chosen before.
    fn affordable(&self, layer: usize, bps: u64) -> bool {
        let higher = self.before.is_none_or(|before| layer > before);
        if higher && self.before.is_some() && !self.may_rise {
            return false;
        }
        let percent = if higher { UP_PERCENT } else { STAY_PERCENT };
        self.takes(layer) * percent / 100 <= bps
    }
}

/// Divides `budget_bps` (`None`: nothing is known against anything).
pub(super) fn allocate(budget_bps: Option<u64>, wishes: &[Wish]) -> Vec<Choice> {
    let mut choices = vec![Choice::default(); wishes.len()];
    let area = |wish: &Wish| wish.tile.unwrap_or(wish.full);
    let mut order: Vec<usize> =
        wishes.iter().enumerate().filter(|(_, wish)| wish.highest().is_some()).map(|(at, _)| at).collect();
    order.sort_by_key(|at| {
        wishes.get(*at).map(|wish| {
            let (width, height) = area(wish);
            (std::cmp::Reverse(wish.speaks), std::cmp::Reverse(u64::from(width) * u64::from(height)))
        })
    });
    let mut left = budget_bps.unwrap_or(u64::MAX / 4);
    // First everybody gets the lowest layer; nobody is left without a picture that could be seen at all.
    let fair = left / (order.len() as u64).max(1);
    for (rank, at) in order.iter().enumerate() {
        let (Some(wish), Some(choice)) = (wishes.get(*at), choices.get_mut(*at)) else { continue };
        if rank > 0 && wish.layered() && left < LEAST_PICTURE_BPS {
            continue;
        }
        let base = wish.takes(0).min(fair.max(LEAST_PICTURE_BPS));
        *choice = Choice { layer: Some(0), share_bps: base };
        left = left.saturating_sub(base);
    }
    // Then the best that can be had, in order.
    for at in &order {
        let (Some(wish), Some(choice)) = (wishes.get(*at), choices.get_mut(*at)) else { continue };
        if choice.layer.is_none() {
            continue;
        }
        let most = wish.own_bps.unwrap_or(u64::MAX).min(choice.share_bps.saturating_add(left));
        let highest = wish.highest().unwrap_or(0);
        let Some(layer) = (1..=highest).rev().find(|layer| wish.affordable(*layer, most)) else { continue };
        let takes = wish.takes(layer).max(choice.share_bps);
        left = left.saturating_sub(takes - choice.share_bps);
        *choice = Choice { layer: Some(layer), share_bps: takes };
    }
    // What is left makes better what was chosen.
    for at in &order {
        let (Some(wish), Some(choice)) = (wishes.get(*at), choices.get_mut(*at)) else { continue };
        let Some(layer) = choice.layer else { continue };
        let most = wish.most(layer).min(wish.own_bps.unwrap_or(u64::MAX));
        let more = most.saturating_sub(choice.share_bps).min(left);
        choice.share_bps += more;
        left -= more;
    }
    choices
}

#[cfg(test)]
mod tests {
    use super::*;

    const HD: (u32, u32) = (1280, 720);

    fn wish(tile: Option<(u32, u32)>) -> Wish {
        Wish {
            speaks: false,
            tile,
            full: HD,
            layers: vec![LayerState::default(); 3],
            before: None,
            may_rise: true,
            own_bps: None,
        }
    }

    fn layers(budget_bps: Option<u64>, wishes: &[Wish]) -> Vec<Option<usize>> {
        allocate(budget_bps, wishes).into_iter().map(|choice| choice.layer).collect()
    }

    #[test]
    fn the_tile_says_what_is_wanted_and_the_budget_what_is_had() {
        let tiles = [None, Some((320, 180)), Some((640, 360)), Some((0, 0))].map(wish);
        assert_eq!(layers(None, &tiles), [Some(2), Some(0), Some(1), None]);
        for (budget, layer) in [(3_000_000, 2), (800_000, 2), (500_000, 1), (200_000, 0), (20_000, 0)] {
            let choice = allocate(Some(budget), &[wish(None)])[0];
            assert_eq!(choice.layer, Some(layer), "{budget}");
            assert!(choice.share_bps <= budget.max(160_000), "{choice:?}");
        }
        assert_eq!(allocate(Some(1_500_000), &[wish(None)])[0].share_bps, 1_500_000, "alone, all of it");
    }

    #[test]
    fn a_layer_that_others_get_is_had_as_it_is_or_not_at_all() {
        let mut shared = wish(None);
        shared.layers[2] = LayerState { live_bps: Some(2_000_000), others_bps: 2_500_000 };
        assert_eq!(layers(Some(1_500_000), &[shared.clone()]), [Some(1)]);
        assert_eq!(layers(Some(2_600_000), &[shared.clone()]), [Some(2)]);
        // A still scene takes less than it might.
        shared.layers[2].live_bps = Some(800_000);
        assert_eq!(layers(Some(1_100_000), &[shared]), [Some(2)]);
    }

    #[test]
    fn who_speaks_comes_first_then_the_largest() {
        let mut wishes = [wish(Some((640, 360))), wish(Some((1280, 720))), wish(Some((640, 360)))];
        assert_eq!(layers(Some(1_200_000), &wishes), [Some(1), Some(2), Some(0)]);
        wishes[2].speaks = true;
        assert_eq!(layers(Some(600_000), &wishes), [Some(0), Some(0), Some(1)]);
        // Where there is not enough even for that, the last ones wait; somebody is always seen.
        assert_eq!(layers(Some(100_000), &wishes), [None, Some(0), Some(0)]);
    }

    #[test]
    fn a_choice_is_kept_while_it_nearly_fits_and_left_for_more_with_room() {
        let mut one = wish(None);
        one.before = Some(2);
        assert_eq!(layers(Some(660_000), &[one.clone()]), [Some(2)]);
        assert_eq!(layers(Some(630_000), &[one.clone()]), [Some(1)]);
        one.before = Some(1);
        assert_eq!(layers(Some(740_000), &[one.clone()]), [Some(1)]);
        assert_eq!(layers(Some(800_000), &[one.clone()]), [Some(2)]);
        one.may_rise = false;
        assert_eq!(layers(Some(800_000), &[one.clone()]), [Some(1)]);
        one.own_bps = Some(300_000);
        one.may_rise = true;
        assert_eq!(layers(None, &[one]), [Some(1)], "its own word counts");
    }

    #[test]
    fn a_picture_without_layers_is_passed_on_and_its_share_tells_the_publisher() {
        let mut plain = wish(None);
        plain.layers = vec![LayerState { live_bps: Some(2_000_000), others_bps: 0 }];
        let choice = allocate(Some(700_000), &[plain.clone()])[0];
        assert_eq!(choice, Choice { layer: Some(0), share_bps: 700_000 });
        plain.tile = Some((0, 0));
        assert_eq!(layers(Some(700_000), &[plain]), [None]);
    }
}
