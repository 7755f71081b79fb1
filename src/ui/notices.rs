//! Lines that tell something: top right, newest below, at most three, 6 s each, longer while pointed at.

use std::time::{Duration, Instant};

use egui::{CornerRadius, Rect, Sense, Stroke, StrokeKind, Ui, pos2, vec2};

use super::icons;
use super::text::{self, tv};
use super::theme::{self, height, radius, size, space};
use super::widgets;
use super::widgets::{Button, Kind};
use crate::call::Command;
use crate::call::view::View;

const LIFE: Duration = Duration::from_secs(6);
/// One that offers something stays for longer.
const OFFER_LIFE: Duration = Duration::from_secs(20);
const MOST: usize = 3;

/// The engine's detector heard somebody speak into a closed gate.
pub const TALKING: &str = "mute.talking";

/// A notice may carry the key of a failure: then the part of its text that stands alone is shown.
fn words(key: &str, values: &[(&'static str, String)]) -> String {
    if text::has(key) {
        return tv(key, values);
    }
    let sound = key.starts_with("dev.mic") || key.starts_with("dev.spk");
    tv(&format!("{key}.{}", if sound { "text" } else { "title" }), values)
}

/// What a notice offers: the key of the button's text, and what it asks for.
fn offer(key: &str) -> Option<(&'static str, Command)> {
    (key == "net.slow_me").then_some(("button.sound_only", Command::SoundOnly(true)))
}

#[derive(Debug)]
struct Line {
    words: String,
    key: String,
    until: Instant,
}

/// The notices on the screen.
#[derive(Debug, Default)]
pub struct Notices {
    lines: Vec<Line>,
    seen: u64,
}

impl Notices {
    /// Shows a line of the window's own.
    pub fn say(&mut self, words: String) {
        self.push(words, String::new());
    }

    fn push(&mut self, words: String, key: String) {
        let life = if offer(&key).is_some() { OFFER_LIFE } else { LIFE };
        self.lines.push(Line { words, key, until: Instant::now() + life });
        if self.lines.len() > MOST {
            self.lines.remove(0);
        }
    }

    /// Takes new ones out of the view and draws those that stand; the offer that was taken.
    pub fn show(&mut self, ui: &mut Ui, view: &View, area: Rect) -> Option<Command> {
        for notice in &view.notices {
            if notice.id > self.seen {
                self.seen = notice.id;
                // The reminder of a muted talker has a place of its own.
                if notice.key != TALKING {
                    self.push(words(notice.key, &notice.values), notice.key.to_owned());
                }
            }
        }
        let now = Instant::now();
        self.lines.retain(|l| l.until > now);
        let p = theme::palette(ui.ctx());
        let w = 360.0_f32.min(area.width() - space::XL);
        let mut y = area.top() + 56.0;
        let mut taken = None;
        for (i, line) in self.lines.iter_mut().enumerate() {
            let offer = offer(&line.key).map(|(label, command)| {
                let button = Button::new(label, Kind::Link, text::t(label)).font_size(size::LABEL);
                let width = button.width(ui);
                (button, width, command)
            });
            let taken_w = offer.as_ref().map_or(0.0, |(_, width, _)| width + space::M);
            let room = w - 60.0 - taken_w;
            let galley = widgets::layout(ui, &line.words, theme::medium(size::LABEL), p.text, room, 3);
            let h = (galley.size().y + space::XL).max(if offer.is_some() { height::HIT + space::M } else { 0.0 });
            let rect = Rect::from_min_size(pos2(area.right() - w - 20.0_f32.min(space::M), y), vec2(w, h));
            ui.painter().add(theme::shadow(p).as_shape(rect, CornerRadius::same(radius::TILE)));
            ui.painter().rect(
                rect,
                CornerRadius::same(radius::TILE),
                p.overlay,
                Stroke::new(1.0, p.border),
                StrokeKind::Inside,
            );
            let glyph = glyph(&line.key);
            widgets::icon(ui, pos2(rect.left() + 24.0, rect.center().y), glyph, false, 20.0, p.text2);
            ui.painter().galley(
                pos2(rect.left() + 48.0, (rect.center().y - galley.size().y / 2.0).round()),
                galley,
                p.text,
            );
            let response = ui.interact(rect, ui.make_persistent_id(("notice", i)), Sense::hover());
            response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Status, true, &line.words));
            if response.hovered() {
                line.until = line.until.max(now + Duration::from_secs(1));
            }
            if let Some((button, width, command)) = offer {
                let at = pos2(rect.right() - space::M - width, rect.center().y - height::HIT / 2.0);
                if button.show(ui, Rect::from_min_size(at, vec2(width, height::HIT))).clicked() {
                    taken = Some(command);
                    line.until = now;
                }
            }
            ui.ctx().request_repaint_after(line.until.saturating_duration_since(now) + Duration::from_millis(20));
            y += h + space::S;
        }
        taken
    }
}

fn glyph(key: &str) -> &'static str {
    match key {
        k if k.contains("joined") => icons::USER_PLUS,
        k if k.contains("left") => icons::SIGN_OUT,
        k if k.starts_with("mute") || k.contains("muted") => icons::MICROPHONE_SLASH,
        k if k.starts_with("dev") => icons::HEADPHONES,
        k if k.starts_with("cam") => icons::VIDEO_CAMERA_SLASH,
        k if k.starts_with("net") => icons::CELL_SIGNAL_SLASH,
        _ => icons::INFO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_make_sentences_too() {
        assert_eq!(words("note.left", &[("name", "Noor".into())]), "Noor left");
        assert_eq!(words("dev.mic_none", &[]), "No microphone found. You can listen and chat.");
        assert_eq!(words("dev.cam_lost", &[("dev", "Cam".into())]), "“Cam” stopped giving pictures");
    }
}
