//! The parts every screen is made of, drawn at given places: text, buttons, fields, meters, marks.
//!
//! Each one tells the screen reader what it is and what it does now, and shows the focus ring.

mod button;
mod fields;

pub use button::{Button, Kind};
pub use fields::{Choice, Field, Mood, Section, menu, segments};

use std::sync::Arc;

use egui::text::{LayoutJob, TextFormat, TextWrapping};
use egui::{
    Align2, Color32, CornerRadius, FontId, Galley, Id, Pos2, Rect, Response, Role, Sense, Stroke, StrokeKind, Ui, Vec2,
    WidgetInfo, pos2, vec2,
};

use super::theme::{self, Palette, height, mix, radius, size, space};
use super::{icons, text};

/// Lays a text out: one line cut with an ellipsis when `rows` is 1, else wrapped.
pub fn layout(ui: &Ui, content: &str, font: FontId, color: Color32, max_width: f32, rows: usize) -> Arc<Galley> {
    let line = size::line(font.size);
    let mut job = LayoutJob::single_section(
        content.to_owned(),
        TextFormat { font_id: font, color, line_height: Some(line), ..TextFormat::default() },
    );
    job.wrap = TextWrapping { max_width, max_rows: rows, break_anywhere: rows == 1, ..TextWrapping::default() };
    ui.painter().layout_job(job)
}

/// Width of a single line.
pub fn width(ui: &Ui, content: &str, font: FontId) -> f32 {
    layout(ui, content, font, Color32::WHITE, f32::INFINITY, 1).size().x
}

/// One line of text at `pos` by `anchor`, cut at `max_width`; what is cut is in the tooltip. Returns its rectangle.
pub fn line(
    ui: &mut Ui,
    pos: Pos2,
    anchor: Align2,
    content: &str,
    font: FontId,
    color: Color32,
    max_width: f32,
) -> Rect {
    let galley = layout(ui, content, font, color, max_width.max(8.0), 1);
    place(ui, pos, anchor, content, galley)
}

/// A paragraph, wrapped at `max_width`, its top left (or top center) at `pos`.
pub fn paragraph(
    ui: &mut Ui,
    pos: Pos2,
    anchor: Align2,
    content: &str,
    font: FontId,
    color: Color32,
    max_width: f32,
) -> Rect {
    let line = size::line(font.size);
    let mut job = LayoutJob::single_section(
        content.to_owned(),
        TextFormat { font_id: font, color, line_height: Some(line), ..TextFormat::default() },
    );
    job.wrap.max_width = max_width;
    if anchor.x() == egui::Align::Center {
        job.halign = egui::Align::Center;
    }
    let galley = ui.painter().layout_job(job);
    if anchor.x() == egui::Align::Center {
        let rect = Rect::from_min_size(pos2(pos.x - galley.size().x / 2.0, pos.y), galley.size());
        ui.painter().galley(pos, galley, color);
        announce_text(ui, rect, content);
        return rect;
    }
    place(ui, pos, anchor, content, galley)
}

fn place(ui: &mut Ui, pos: Pos2, anchor: Align2, content: &str, galley: Arc<Galley>) -> Rect {
    let rect = anchor.anchor_size(pos, galley.size());
    let rect = Rect::from_min_size(pos2(rect.min.x.round(), rect.min.y.round()), rect.size());
    let cut = galley.elided;
    ui.painter().galley(rect.min, galley, Color32::PLACEHOLDER);
    let response = announce_text(ui, rect, content);
    if cut {
        response.on_hover_text(content);
    }
    rect
}

fn announce_text(ui: &mut Ui, rect: Rect, content: &str) -> Response {
    let id = ui.next_auto_id();
    ui.skip_ahead_auto_ids(1);
    let response = ui.interact(rect, id, Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, content));
    response
}

/// An icon centered at `pos`.
pub fn icon(ui: &Ui, pos: Pos2, glyph: &str, filled: bool, points: f32, color: Color32) {
    let font = if filled { theme::icon_fill(points) } else { theme::icon(points) };
    let galley = ui.painter().layout_no_wrap(glyph.to_owned(), font, color);
    // By the glyph's own box, so that it sits in the optical middle whatever the font's line metrics are.
    let rect = galley.mesh_bounds;
    let box_center =
        if rect.is_positive() { pos2(galley.rect.center().x, rect.center().y) } else { galley.rect.center() };
    let centered_y = if rect.height() > points * 0.5 { box_center.y } else { galley.rect.center().y };
    ui.painter().galley(pos2(pos.x - box_center.x, pos.y - centered_y), galley, color);
}

/// The ring of a focused control: 2 pt, 2 pt away.
pub fn focus_ring(ui: &Ui, rect: Rect, corner: u8) {
    let p = theme::palette(ui.ctx());
    ui.painter().rect_stroke(
        rect.expand(2.0),
        CornerRadius::same(corner.saturating_add(2)),
        Stroke::new(2.0, p.focus),
        StrokeKind::Outside,
    );
}

/// A card.
pub fn card(ui: &Ui, rect: Rect, p: &Palette) {
    ui.painter().rect(rect, CornerRadius::same(radius::CARD), p.raised, Stroke::new(1.0, p.border), StrokeKind::Inside);
}

/// Three bars beside the microphone: its live level. `pos` is the middle of the left edge.
pub fn level_bars(ui: &Ui, pos: Pos2, level: f32, p: &Palette) {
    for (i, h) in [5.0_f32, 9.0, 13.0].into_iter().enumerate() {
        let on = level > (i as f32 + 0.4) / 3.4;
        let x = pos.x + i as f32 * 5.0;
        let rect = Rect::from_min_max(pos2(x, pos.y + 6.5 - h), pos2(x + 3.0, pos.y + 6.5));
        ui.painter().rect_filled(rect, CornerRadius::same(1), if on { p.accent } else { p.border_strong });
    }
}

/// Quality of a link in four bars; fewer than three are amber.
pub fn quality_bars(ui: &Ui, center: Pos2, bars: u8, on: Color32, slow: Color32, off: Color32) {
    for i in 0..4_u8 {
        let h = 4.0 + f32::from(i) * 3.0;
        let x = center.x - 8.0 + f32::from(i) * 4.5;
        let rect = Rect::from_min_max(pos2(x, center.y + 6.5 - h), pos2(x + 3.0, center.y + 6.5));
        let color = if i >= bars {
            off
        } else if bars < 3 {
            slow
        } else {
            on
        };
        ui.painter().rect_filled(rect, CornerRadius::same(1), color);
    }
}

/// A busy mark. It always stands beside words, and whatever it waits for has an end.
pub fn spinner(ui: &Ui, center: Pos2, r: f32, color: Color32) {
    let t = ui.input(|i| i.time) as f32;
    let points: Vec<Pos2> = (0..=24)
        .map(|i| {
            let a = t * 5.0 + i as f32 / 24.0 * 4.7;
            pos2(center.x + r * a.cos(), center.y + r * a.sin())
        })
        .collect();
    ui.painter().add(egui::Shape::line(points, Stroke::new(2.0, color)));
    ui.ctx().request_repaint_after(std::time::Duration::from_millis(66));
}

/// A dBFS level as a share of a meter: −60 is empty, 0 is full.
pub fn meter_share(dbfs: f32) -> f32 {
    ((dbfs + 60.0) / 60.0).clamp(0.0, 1.0)
}

/// A row of small segments.
pub fn meter(ui: &mut Ui, rect: Rect, share: f32, name: &str) {
    let p = theme::palette(ui.ctx());
    let id = ui.next_auto_id();
    ui.skip_ahead_auto_ids(1);
    let response = ui.interact(rect, id, Sense::hover());
    response.widget_info(|| {
        let mut info = WidgetInfo::labeled(Role::Meter, true, name);
        info.value = Some(f64::from((share * 100.0).round()));
        info
    });
    let count = ((rect.width() + 2.0) / 6.0).floor().max(1.0);
    for i in 0..count as usize {
        let x = rect.left() + i as f32 * 6.0;
        let seg = Rect::from_min_size(pos2(x, rect.center().y - 3.0), vec2(4.0, 6.0));
        let on = (i as f32 + 0.5) / count <= share;
        ui.painter().rect_filled(seg, CornerRadius::same(1), if on { p.accent } else { p.hover });
    }
}

/// The round mark with somebody's initial.
pub fn avatar(ui: &Ui, center: Pos2, diameter: f32, name: &str) {
    let (back, front) = theme::avatar(name);
    ui.painter().circle_filled(center, diameter / 2.0, back);
    let galley = ui.painter().layout_no_wrap(initial(name), theme::semibold((diameter * 0.4).round()), front);
    let ink = galley.mesh_bounds;
    let middle = if ink.is_positive() { ink.center() } else { galley.rect.center() };
    ui.painter().galley(pos2(center.x - middle.x, center.y - middle.y), galley, front);
}

/// First letter of a name, upper case; `?` when there is none that the fonts can draw.
pub fn initial(name: &str) -> String {
    name.chars().find(|c| c.is_alphanumeric()).map_or_else(|| "?".to_owned(), |c| c.to_uppercase().take(1).collect())
}

/// Amber, red or neutral box with a sentence and one thing to do. Returns its height and whether the link was pressed.
pub fn note(
    ui: &mut Ui,
    pos: Pos2,
    max_width: f32,
    mood: Mood,
    sentence: &str,
    action: Option<(&str, &str)>,
) -> (f32, bool) {
    let p = theme::palette(ui.ctx());
    let (fill, ink, glyph) = match mood {
        Mood::Calm => (p.accent_soft, p.accent_text, icons::INFO),
        Mood::Warn => (p.warn_soft, p.warn_text, icons::WARNING),
        Mood::Wrong => (p.danger_soft, p.danger_text, icons::X_CIRCLE),
    };
    let inner = max_width - 40.0 - space::M;
    let galley = {
        let mut job = LayoutJob::single_section(
            sentence.to_owned(),
            TextFormat {
                font_id: theme::regular(size::LABEL),
                color: p.text,
                line_height: Some(18.0),
                ..TextFormat::default()
            },
        );
        job.wrap.max_width = inner;
        ui.painter().layout_job(job)
    };
    let mut h = 10.0 + galley.size().y + 10.0;
    let button = action.map(|(salt, label)| Button::new(salt, Kind::Link, label).font_size(size::LABEL));
    let last_w = galley.rows.last().map_or(0.0, |r| r.size.x);
    let button_w = button.as_ref().map_or(0.0, |b| b.width(ui));
    let same_line = last_w + space::S + button_w <= inner;
    if button.is_some() && !same_line {
        h += 18.0;
    }
    let rect = Rect::from_min_size(pos, vec2(max_width, h));
    ui.painter().rect_filled(rect, CornerRadius::same(radius::BUTTON), fill);
    icon(ui, pos2(pos.x + 20.0, pos.y + 19.0), glyph, true, 18.0, ink);
    let at = pos2(pos.x + 40.0, pos.y + 10.0);
    let text_h = galley.size().y;
    ui.painter().galley(at, galley, p.text);
    announce_text(ui, Rect::from_min_size(at, vec2(inner, text_h)), sentence);
    let mut pressed = false;
    if let Some(button) = button {
        let (x, y) = if same_line { (at.x + last_w + 4.0, at.y + text_h - 18.0) } else { (at.x, at.y + text_h) };
        pressed = button.show(ui, Rect::from_min_size(pos2(x, y), vec2(button_w, 18.0))).clicked();
    }
    (h, pressed)
}

/// The program's mark: a rounded square with three joined dots.
pub fn mark(ui: &Ui, rect: Rect) {
    let p = theme::palette(ui.ctx());
    let s = rect.width() / 28.0;
    ui.painter().rect_filled(rect, CornerRadius::same((7.0 * s) as u8), p.accent);
    let at = |x: f32, y: f32| pos2(rect.left() + x * s, rect.top() + y * s);
    let dots = [at(14.0, 8.5), at(8.0, 19.0), at(20.0, 19.0)];
    let stroke = Stroke::new(2.0 * s, p.on_accent);
    let [top, left, right] = dots;
    for pair in [[top, left], [left, right], [right, top]] {
        ui.painter().line_segment(pair, stroke);
    }
    for dot in dots {
        ui.painter().circle_filled(dot, 3.2 * s, p.on_accent);
    }
}

/// Text of a failure: its title and sentence, values filled in.
pub fn failure_text(failure: &crate::call::view::Failure) -> (String, String) {
    let title = text::tv(&format!("{}.title", failure.key), &failure.values);
    let sentence = text::tv(&format!("{}.text", failure.key), &failure.values);
    (title, sentence)
}
