use super::*;
use proptest::prelude::*;

fn packet(layer: usize, number: u64, timestamp: u32, key: bool, picture: u16) -> Place {
    Place { layer, number, timestamp, key, picture: Some(picture), tl0: Some(picture as u8) }
}

#[test]
fn a_single_layer_keeps_its_numbers() {
    let mut switcher = Switcher::new();
    assert_eq!(switcher.take(&packet(0, 70_000, 5, false, 9), false, 0), None, "no key frame yet");
    let first = switcher.take(&packet(0, 70_001, 3_005, true, 10), false, 0).unwrap();
    assert_eq!(first, Placed { number: 70_001, timestamp: 3_005, picture_shift: 0, tl0_shift: 0 });
    assert_eq!(switcher.take(&packet(0, 70_000, 5, false, 9), false, 0), None, "it was never sent");
    assert_eq!(switcher.take(&packet(0, 70_003, 6_005, false, 11), false, 0).unwrap().number, 70_003);
    assert_eq!(switcher.origin(70_002), Some((0, 70_002)), "a hole that may be asked for");
    assert_eq!(switcher.origin(70_004), None);
    assert_eq!((switcher.current(), switcher.highest()), (Some(0), Some(70_003)));
}

#[test]
fn another_layer_begins_with_its_key_frame_and_the_old_one_ends_there() {
    let mut switcher = Switcher::new();
    switcher.take(&packet(0, 100, 9_000, true, 5), false, 0).unwrap();
    switcher.take(&packet(0, 102, 12_000, false, 6), false, 33_000).unwrap();
    switcher.set_target(Some(2));
    assert!(switcher.waits_for_key_frame());
    assert_eq!(switcher.take(&packet(2, 500, 12_000, false, 70), false, 33_000), None);
    assert_eq!(switcher.take(&packet(0, 103, 15_000, false, 7), false, 66_000).unwrap().number, 103);
    // The same picture as the last one of the old layer: it comes behind it all the same.
    let key = switcher.take(&packet(2, 502, 15_000, true, 72), false, 70_000).unwrap();
    assert_eq!((key.number, key.timestamp), (104, 15_001));
    assert_eq!(72u16.wrapping_add(key.picture_shift) & 0x7fff, 8);
    assert_eq!(72u8.wrapping_add(key.tl0_shift), 8);
    assert_eq!(switcher.take(&packet(0, 104, 18_000, false, 8), false, 100_000), None);
    // What was still missing of the old layer has its number waiting.
    assert_eq!(switcher.take(&packet(0, 101, 12_000, false, 6), false, 100_000).unwrap().number, 101);
    let next = switcher.take(&packet(2, 503, 18_000, false, 73), false, 100_000).unwrap();
    assert_eq!((next.number, next.timestamp), (105, 18_000), "and then the clock goes right again");
    assert_eq!((switcher.origin(104), switcher.origin(101)), (Some((2, 502)), Some((0, 101))));
    assert_eq!(switcher.again(104, 15_000), Some(key));
}

#[test]
fn a_pause_ends_at_once_and_goes_on_with_a_key_frame() {
    let mut switcher = Switcher::new();
    switcher.take(&packet(0, 10, 9_000, true, 5), false, 0).unwrap();
    switcher.set_target(None);
    assert_eq!(switcher.take(&packet(0, 11, 12_000, true, 6), false, 33_000), None);
    assert!(!switcher.waits_for_key_frame());
    switcher.set_target(Some(0));
    assert_eq!(switcher.take(&packet(0, 299, 909_000, false, 305), false, 10_000_000), None);
    let back = switcher.take(&packet(0, 300, 909_000, true, 306), false, 10_000_000).unwrap();
    assert_eq!((back.number, back.timestamp), (11, 909_000), "the clock has gone on");
    assert_eq!(306u16.wrapping_add(back.picture_shift), 6);
}

#[test]
fn what_was_halted_is_neither_repeated_nor_completed() {
    let mut switcher = Switcher::new();
    switcher.take(&packet(0, 10, 9_000, true, 5), false, 0).unwrap();
    switcher.take(&packet(0, 12, 12_000, false, 6), false, 33_000).unwrap();
    assert_eq!(switcher.origin(12), Some((0, 12)));
    switcher.set_target(Some(1));
    assert!(switcher.passes(0) && switcher.passes(1) && !switcher.passes(2));
    switcher.halt();
    assert!(!switcher.passes(0));
    assert_eq!((switcher.origin(10), switcher.origin(12)), (None, None));
    assert_eq!(switcher.take(&packet(0, 11, 12_000, false, 6), false, 40_000), None, "it comes late");
    let key = switcher.take(&packet(1, 70, 15_000, true, 30), false, 66_000).unwrap();
    assert_eq!(key.number, 13);
    assert_eq!((switcher.origin(12), switcher.origin(13)), (None, Some((1, 70))));
}

#[test]
fn layers_without_a_common_clock_follow_the_time() {
    let mut switcher = Switcher::new();
    switcher.take(&packet(0, 10, 9_000, true, 5), false, 0).unwrap();
    switcher.set_target(Some(1));
    let other = switcher.take(&packet(1, 10, 0xf000_0000, true, 5), false, 100_000).unwrap();
    assert_eq!(other.timestamp, 18_000);
    let next = switcher.take(&packet(1, 11, 0xf000_0bb8, false, 6), false, 133_000).unwrap();
    assert_eq!(next.timestamp, 21_000);
}

#[derive(Debug, Clone)]
enum Step {
    /// The next picture of all layers, of so many packets; whether each is a key frame.
    Picture {
        parts: [u64; 3],
        keys: [bool; 3],
    },
    Target(Option<usize>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (prop::array::uniform3(1u64..4), prop::array::uniform3(any::<bool>())).prop_map(|(parts, keys)| Step::Picture { parts, keys }),
        2 => prop::option::of(0usize..3).prop_map(Step::Target),
    ]
}

proptest! {
    /// Whatever is switched when: numbers without a gap, pictures in a row, timestamps that rise, key frames where a layer begins.
    #[test]
    fn any_row_of_switches_gives_one_stream(
        steps in prop::collection::vec(step(), 1..120),
        numbers in prop::array::uniform3(0x1_0000u64..0x2_0000),
        pictures in prop::array::uniform3(any::<u16>()),
        clocks in prop_oneof![any::<u32>().prop_map(|c| [c; 3]), prop::array::uniform3(any::<u32>())],
        order in Just([0usize, 1, 2]).prop_shuffle(),
    ) {
        let mut switcher = Switcher::new();
        let (mut numbers, mut pictures) = (numbers, pictures);
        let mut got: Vec<(Placed, Place)> = Vec::new();
        for (time, step) in (0u64..).zip(steps) {
            match step {
                Step::Target(target) => switcher.set_target(target),
                Step::Picture { parts, keys } => for layer in order {
                    for part in 0..parts[layer] {
                        let place = Place {
                            layer,
                            number: numbers[layer],
                            timestamp: clocks[layer].wrapping_add(time as u32 * 3_000),
                            key: keys[layer] && part == 0,
                            picture: Some(pictures[layer] & 0x7fff),
                            tl0: Some(pictures[layer] as u8),
                        };
                        numbers[layer] += 1;
                        if let Some(placed) = switcher.take(&place, false, time * 33_333) {
                            prop_assert_eq!(switcher.origin(placed.number), Some((layer, place.number)));
                            prop_assert_eq!(switcher.again(placed.number, place.timestamp), Some(placed));
                            got.push((placed, place));
                        }
                    }
                    pictures[layer] = pictures[layer].wrapping_add(1);
                },
            }
        }
        if let Some((_, first)) = got.first() {
            prop_assert!(first.key);
        }
        for pair in got.windows(2) {
            let [(before, old), (after, new)] = pair else { continue };
            prop_assert_eq!(after.number, before.number + 1);
            let picture = |placed: &Placed, place: &Place| place.picture.unwrap().wrapping_add(placed.picture_shift) & 0x7fff;
            let tl0 = |placed: &Placed, place: &Place| place.tl0.unwrap().wrapping_add(placed.tl0_shift);
            let same = old.layer == new.layer && old.timestamp == new.timestamp;
            let ahead = after.timestamp.wrapping_sub(before.timestamp) as i32;
            let step = picture(after, new).wrapping_sub(picture(before, old)) & 0x7fff;
            let index = tl0(after, new).wrapping_sub(tl0(before, old));
            if same && !new.key {
                prop_assert_eq!((ahead, step, index), (0, 0, 0), "packets of one picture");
            } else {
                prop_assert!(ahead > 0 && ahead < 90_000 * 60, "{} after {}", after.timestamp, before.timestamp);
                prop_assert_eq!((step, index), (1, 1));
            }
            if old.layer != new.layer {
                prop_assert!(new.key, "a layer begins with its key frame");
            }
        }
    }
}
