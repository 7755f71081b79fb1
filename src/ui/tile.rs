//! One tile: picture or initial, plate, ring of a speaker, and what it says when there is no picture.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use egui::{CornerRadius, Rect, Sense, Stroke, StrokeKind, Ui, pos2, vec2};

use super::text::{clean, t, tv};
use super::theme::{self, height, radius, size, space};
use super::video::{Show, Video};
use super::{icons, widgets};
use crate::call::view::{Tile, TileKind};

/// Mark in front of a name on a plate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MicMark {
    /// Speaking now.
    Live,
    /// Muted.
    Muted,
}

/// What a tile needs to know beside itself.
#[derive(Debug, Clone, Copy)]
pub struct Around {
    /// The connection is lost: seconds since the last sign of life.
    pub cut_off_s: Option<u64>,
    /// Speaks, as [`Voices`] found.
    pub speaking: bool,
    /// Mirror the own picture.
    pub mirror: bool,
    /// My own microphone is muted; own tiles go by this, at once.
    pub own_muted: bool,
}

/// Draws a tile.
pub fn show(ui: &mut Ui, video: &mut Video, tile: &Tile, rect: Rect, around: Around) {
    let p = theme::palette(ui.ctx());
    let corner = CornerRadius::same(radius::TILE);
    let name = clean(&tile.name);
    let stalled = tile.stalled_ms.filter(|_| !tile.own);
    let cut = around.cut_off_s.filter(|_| !tile.own);
    let dimmed = stalled.is_some() || cut.is_some();
    let light = if dimmed { theme::DIMMED } else { 1.0 };
    let screen = tile.kind == TileKind::Screen;
    let show = Show {
        screen,
        mirror: around.mirror && tile.own && !screen,
        light,
        corner: radius::TILE,
        back: if screen { theme::LETTERBOX_SCREEN } else { p.tile_off },
    };
    let shown = tile.video_active && video.show(ui, &tile.key, &tile.frames, rect, show);
    if !shown {
        ui.painter().rect_filled(rect, corner, p.tile_off);
        let diameter = (rect.height() * 0.417).clamp(32.0, 160.0);
        widgets::avatar(ui, rect.center(), diameter, &name);
        if dimmed {
            ui.painter().rect_filled(rect, corner, p.canvas.gamma_multiply(1.0 - theme::DIMMED));
        }
    }
    // Muting oneself shows at once, though the ring of others fades late.
    if around.speaking && !dimmed && !(tile.own && around.own_muted) {
        ui.painter().rect_stroke(
            rect,
            CornerRadius::same(radius::TILE),
            Stroke::new(3.0, p.accent),
            StrokeKind::Outside,
        );
    }
    let label = if tile.own { own_name(&name) } else { name.clone() };
    let muted = if tile.own { around.own_muted } else { !tile.audio_active };
    let mark = match (screen, muted, around.speaking && !dimmed) {
        (true, _, _) => None,
        (_, true, _) => Some(MicMark::Muted),
        (_, _, true) => Some(MicMark::Live),
        _ => None,
    };
    let bars = (tile.bars < 3 && !tile.own && rect.width() >= 160.0 && cut.is_none()).then_some(tile.bars);
    plate(ui, rect, mark, &label, bars);
    if let Some(failure) = &tile.failure {
        let (title, _) = widgets::failure_text(failure);
        center_plate(ui, rect, &title);
    } else if let Some(s) = cut {
        if tile.video_active {
            center_plate(ui, rect, &tv("conn.last_picture", &[("s", s.to_string())]));
        }
    } else if let Some(ms) = stalled {
        center_plate(ui, rect, &tv("conn.tile", &[("s", (ms / 1000).to_string())]));
    }
    let mut spoken = vec![label];
    let mut word = |key: &str| spoken.push(t(key).into_owned());
    if muted && !screen {
        word("tile.muted");
    } else if around.speaking {
        word("tile.speaking");
    }
    word(if screen {
        "tile.screen"
    } else if tile.video_active {
        "tile.camera_on"
    } else {
        "tile.camera_off"
    });
    if bars.is_some() {
        word("tile.slow");
    }
    if tile.pinned {
        word("tile.pinned");
    }
    let spoken = spoken.join(", ");
    let response = ui.interact(rect, ui.make_persistent_id(("tile", &tile.key)), Sense::hover());
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Group, true, &spoken));
}

/// `Ines (you)`.
pub fn own_name(name: &str) -> String {
    if name.is_empty() { t("call.you_bare").into_owned() } else { tv("call.you", &[("name", name)]) }
}

/// The plate with a name in the lower left corner of a picture.
pub fn plate(ui: &mut Ui, tile: Rect, mark: Option<MicMark>, name: &str, bars: Option<u8>) {
    let mut w = 12.0;
    if mark.is_some() {
        w += 14.0 + 6.0;
    }
    if bars.is_some() {
        w += 17.0 + 6.0;
    }
    let room = tile.width() - 2.0 * space::S - w;
    let galley = widgets::layout(ui, name, theme::medium(size::CAPTION), theme::ON_PLATE, room.max(16.0), 1);
    let rect = Rect::from_min_size(
        pos2(tile.left() + space::S, tile.bottom() - space::S - height::CHIP),
        vec2((w + galley.size().x).ceil(), height::CHIP),
    );
    ui.painter().rect_filled(rect, CornerRadius::same(radius::CHIP), theme::plate());
    let mut x = rect.left() + 6.0;
    let y = rect.center().y;
    if let Some(mark) = mark {
        let (glyph, color) = match mark {
            MicMark::Live => (icons::MICROPHONE, theme::PLATE_LIVE),
            MicMark::Muted => (icons::MICROPHONE_SLASH, theme::PLATE_MUTED),
        };
        widgets::icon(ui, pos2(x + 7.0, y), glyph, true, 14.0, color);
        x += 20.0;
    }
    let text_w = galley.size().x;
    ui.painter().galley(pos2(x, (y - galley.size().y / 2.0).round()), galley, theme::ON_PLATE);
    if let Some(bars) = bars {
        widgets::quality_bars(
            ui,
            pos2(x + text_w + 6.0 + 8.5, y),
            bars,
            theme::ON_PLATE,
            theme::PLATE_WARN,
            theme::PLATE_UNLIT,
        );
    }
}

fn center_plate(ui: &mut Ui, tile: Rect, words: &str) {
    let p = theme::palette(ui.ctx());
    let _ = p;
    let galley =
        widgets::layout(ui, words, theme::medium(size::CAPTION), theme::ON_PLATE, tile.width() - 2.0 * space::XL, 1);
    let rect = Rect::from_center_size(tile.center(), galley.size() + vec2(20.0, 12.0));
    ui.painter().rect_filled(rect, CornerRadius::same(radius::BUTTON), theme::plate());
    ui.painter().galley(rect.center() - galley.size() / 2.0, galley, theme::ON_PLATE);
}

/// Who speaks, steadied: on after 200 ms of voice, off 600 ms after it, at most three at once.
#[derive(Debug, Default)]
pub struct Voices {
    states: HashMap<String, Voice>,
}

#[derive(Debug, Clone, Copy)]
struct Voice {
    since: Instant,
    last: Instant,
    on: bool,
}

const ON_AFTER: Duration = Duration::from_millis(200);
const OFF_AFTER: Duration = Duration::from_millis(600);
const MOST: usize = 3;

impl Voices {
    /// Takes the levels of this moment and says whose rings are drawn. `heard` is key and whether there is voice.
    pub fn update<'a>(&mut self, now: Instant, heard: impl Iterator<Item = (&'a str, bool)>) -> Vec<String> {
        let mut present = Vec::new();
        for (key, voice) in heard {
            present.push(key.to_owned());
            match self.states.get_mut(key) {
                Some(state) if voice => {
                    if now.duration_since(state.last) > OFF_AFTER {
                        state.since = now;
                        state.on = false;
                    }
                    state.last = now;
                    state.on |= now.duration_since(state.since) >= ON_AFTER;
                }
                Some(state) => state.on &= now.duration_since(state.last) < OFF_AFTER,
                None if voice => {
                    self.states.insert(key.to_owned(), Voice { since: now, last: now, on: false });
                }
                None => {}
            }
        }
        self.states.retain(|key, _| present.contains(key));
        let mut on: Vec<(&String, Instant)> =
            self.states.iter().filter(|(_, s)| s.on).map(|(k, s)| (k, s.since)).collect();
        // Those who have spoken longest keep their ring, so that rings do not flicker between many.
        on.sort_by(|a, b| a.1.cmp(&b.1).then_with(|| a.0.cmp(b.0)));
        on.into_iter().take(MOST).map(|(k, _)| k.clone()).collect()
    }

    /// Whether anybody's state may still change by itself.
    pub fn busy(&self) -> bool {
        self.states.values().any(|s| s.on || s.last.elapsed() < OFF_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_steady() {
        let mut v = Voices::default();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert!(v.update(at(0), [("a", true)].into_iter()).is_empty());
        assert!(v.update(at(100), [("a", true)].into_iter()).is_empty());
        assert_eq!(v.update(at(210), [("a", true)].into_iter()), ["a"]);
        // A pause between words keeps it, a real silence ends it.
        assert_eq!(v.update(at(500), [("a", false)].into_iter()), ["a"]);
        assert!(v.update(at(900), [("a", false)].into_iter()).is_empty());
        // A click is no voice.
        assert!(v.update(at(5000), [("a", true)].into_iter()).is_empty());
        assert!(v.update(at(5100), [("a", false)].into_iter()).is_empty());
    }

    #[test]
    fn at_most_three_rings() {
        let mut v = Voices::default();
        let start = Instant::now();
        let all = ["a", "b", "c", "d", "e"];
        for ms in [0, 100, 250] {
            let on = v.update(start + Duration::from_millis(ms), all.iter().map(|k| (*k, true)));
            assert!(on.len() <= 3);
        }
        assert_eq!(v.update(start + Duration::from_millis(300), all.iter().map(|k| (*k, true))).len(), 3);
    }
}
