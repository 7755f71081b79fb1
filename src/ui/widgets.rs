//! The parts every screen is made of, drawn at given places: text, buttons, fields, meters, marks.
//!
//! Each one tells the screen reader what it is and what it does now, and shows the focus ring.

use std::sync::Arc;

use egui::text::{LayoutJob, TextFormat, TextWrapping};
use egui::{
    Align2, Color32, CornerRadius, FontId, Galley, Id, Pos2, Rect, Response, Role, Sense, Stroke, StrokeKind, Ui, Vec2,
    WidgetInfo, pos2, vec2,
};

use super::theme::{self, Palette, height, radius, size, space};
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

/// How a button looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The one main thing of a view.
    Primary,
    /// Framed.
    Secondary,
    /// Accent outline.
    Outline,
    /// Text only.
    Quiet,
    /// Leave, stop, decline; nothing else.
    Danger,
    /// In the call's control bar.
    Control,
    /// The same, switched on.
    ControlOn,
    /// The same, muted.
    ControlMuted,
    /// Accent text only, as a link.
    Link,
}

/// A button. Built by its methods, drawn by [`Button::show`].
pub struct Button<'a> {
    salt: &'a str,
    kind: Kind,
    glyph: Option<(&'a str, bool)>,
    label: String,
    name: String,
    key: String,
    enabled: bool,
    why: String,
    busy: bool,
    level: Option<f32>,
    warn: bool,
    trailing: Option<&'a str>,
    corner: Option<CornerRadius>,
    toggled: Option<bool>,
    font_size: f32,
}

impl<'a> Button<'a> {
    /// A button that reads `label`; `salt` tells it from others on the same screen.
    pub fn new(salt: &'a str, kind: Kind, label: impl Into<String>) -> Self {
        let label = label.into();
        Self {
            salt,
            kind,
            glyph: None,
            name: label.clone(),
            label,
            key: String::new(),
            enabled: true,
            why: String::new(),
            busy: false,
            level: None,
            warn: false,
            trailing: None,
            corner: None,
            toggled: None,
            font_size: size::BODY,
        }
    }

    /// A button that shows only an icon; `name` is for the tooltip and the screen reader.
    pub fn icon_only(salt: &'a str, kind: Kind, glyph: &'a str, filled: bool, name: impl Into<String>) -> Self {
        let mut button = Self::new(salt, kind, "").icon(glyph, filled);
        button.name = name.into();
        button
    }

    /// With an icon in front.
    pub fn icon(mut self, glyph: &'a str, filled: bool) -> Self {
        self.glyph = Some((glyph, filled));
        self
    }

    /// Another name for tooltip and screen reader than the label.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The key that does the same, shown in the tooltip.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    /// Disabled, with the reason in the tooltip.
    pub fn enabled(mut self, enabled: bool, why: impl Into<String>) -> Self {
        self.enabled = enabled;
        self.why = why.into();
        self
    }

    /// With a turning mark instead of the icon.
    pub fn busy(mut self, busy: bool) -> Self {
        self.busy = busy;
        self
    }

    /// With live level bars, 0 to 1.
    pub fn level(mut self, level: Option<f32>) -> Self {
        self.level = level;
        self
    }

    /// With a warning mark.
    pub fn warn(mut self, warn: bool) -> Self {
        self.warn = warn;
        self
    }

    /// With an icon behind, a caret for example.
    pub fn trailing(mut self, glyph: &'a str) -> Self {
        self.trailing = Some(glyph);
        self
    }

    /// Other corners, for the halves of a split control.
    pub fn corner(mut self, corner: CornerRadius) -> Self {
        self.corner = Some(corner);
        self
    }

    /// State of a switch, for the screen reader.
    pub fn toggled(mut self, on: bool) -> Self {
        self.toggled = Some(on);
        self
    }

    /// Text size.
    pub fn font_size(mut self, points: f32) -> Self {
        self.font_size = points;
        self
    }

    fn font(&self) -> FontId {
        match self.kind {
            Kind::Primary | Kind::Danger => theme::semibold(self.font_size),
            _ => theme::medium(self.font_size),
        }
    }

    fn is_control(&self) -> bool {
        matches!(self.kind, Kind::Control | Kind::ControlOn | Kind::ControlMuted)
    }

    fn icon_size(&self) -> f32 {
        if matches!(self.glyph, Some((icons::CARET_UP, _))) {
            return 16.0;
        }
        if self.is_control() || (self.kind == Kind::Danger && self.glyph.is_some()) { 22.0 } else { 18.0 }
    }

    fn content_width(&self, ui: &Ui) -> f32 {
        let mut w = 0.0;
        if self.glyph.is_some() || self.busy {
            w += self.icon_size();
        }
        if !self.label.is_empty() {
            if w > 0.0 {
                w += space::S;
            }
            w += width(ui, &self.label, self.font());
        }
        if self.level.is_some() || self.warn {
            w += space::S + 16.0;
        }
        if self.trailing.is_some() {
            w += space::S + 14.0;
        }
        w
    }

    /// Width the button wants.
    pub fn width(&self, ui: &Ui) -> f32 {
        let padding = match self.kind {
            Kind::Link => 0.0,
            Kind::Control | Kind::ControlOn | Kind::ControlMuted => 14.0,
            _ if self.label.is_empty() => 9.0,
            _ => space::L - 1.0,
        };
        (self.content_width(ui) + padding * 2.0).ceil().max(if self.kind == Kind::Link { 0.0 } else { height::HIT })
    }

    /// Draws it and says what happened to it.
    pub fn show(self, ui: &mut Ui, rect: Rect) -> Response {
        let p = theme::palette(ui.ctx());
        let id = ui.make_persistent_id(self.salt);
        let sense = if self.enabled && !self.busy { Sense::click() } else { Sense::hover() };
        // The area that reacts is never smaller than 32 by 32.
        let hit = Rect::from_center_size(rect.center(), rect.size().max(Vec2::splat(height::HIT)));
        let response = ui.interact(hit, id, sense);
        let enabled = self.enabled && !self.busy;
        response.widget_info(|| {
            let mut info = WidgetInfo::labeled(Role::Button, enabled, &self.name);
            info.selected = self.toggled;
            info
        });
        let hovered = response.hovered() && enabled;
        let down = response.is_pointer_button_down_on() && enabled;
        let on_raised = p.overlay;
        let (mut fill, mut ink, mut stroke) = match self.kind {
            Kind::Primary => (if hovered { p.accent_hover } else { p.accent }, p.on_accent, Stroke::NONE),
            Kind::Danger => (if hovered { p.danger_hover } else { p.danger }, p.on_danger, Stroke::NONE),
            Kind::Secondary => (if hovered { p.hover } else { on_raised }, p.text, Stroke::new(1.0, p.border)),
            Kind::Outline => {
                (if hovered { p.accent_soft } else { on_raised }, p.accent_text, Stroke::new(1.0, p.accent_text))
            }
            Kind::Quiet => (if hovered { p.hover } else { Color32::TRANSPARENT }, p.text, Stroke::NONE),
            Kind::Link => (Color32::TRANSPARENT, p.accent_text, Stroke::NONE),
            Kind::Control => (
                if hovered { p.hover } else { p.raised },
                p.text,
                if p.raised == p.surface || p.raised == Color32::WHITE {
                    Stroke::new(1.0, p.border)
                } else {
                    Stroke::NONE
                },
            ),
            Kind::ControlOn => (p.accent_soft, p.accent_text, Stroke::NONE),
            Kind::ControlMuted => (p.danger_soft, p.danger_text, Stroke::NONE),
        };
        if down && !matches!(self.kind, Kind::Primary | Kind::Danger | Kind::Link) {
            fill = p.pressed;
        }
        if hovered && matches!(self.kind, Kind::ControlOn | Kind::ControlMuted) {
            stroke = Stroke::new(1.0, ink);
        }
        if !self.enabled {
            let back = if matches!(self.kind, Kind::Primary | Kind::Danger) { p.surface } else { p.canvas };
            fill = if fill == Color32::TRANSPARENT { fill } else { mix(back, fill, 0.5) };
            ink = if self.kind == Kind::Primary { mix(fill, ink, 0.75) } else { mix(back, ink, 0.42) };
            stroke.color = mix(back, stroke.color, 0.5);
        }
        let corner = self.corner.unwrap_or(CornerRadius::same(match self.kind {
            Kind::Control | Kind::ControlOn | Kind::ControlMuted => radius::CONTROL,
            _ if rect.height() >= height::CONTROL => radius::CONTROL,
            _ => radius::BUTTON,
        }));
        if ui.is_rect_visible(rect) {
            ui.painter().rect(rect, corner, fill, stroke, StrokeKind::Inside);
            self.content(ui, rect, ink, p);
            if response.has_focus() {
                focus_ring(ui, rect, corner.nw.max(corner.ne));
            }
        }
        if hovered {
            ui.ctx().set_cursor_icon(egui::CursorIcon::PointingHand);
        }
        let tip = match (
            self.enabled,
            self.why.is_empty(),
            self.label.is_empty() || self.label != self.name,
            self.key.is_empty(),
        ) {
            (false, false, _, _) => Some(self.why.clone()),
            (_, _, _, false) => Some(format!("{}  {}", self.name, self.key)),
            (_, _, true, true) => Some(self.name.clone()),
            _ => None,
        };
        match tip {
            Some(tip) if !tip.is_empty() => response.on_hover_text(tip),
            _ => response,
        }
    }

    fn content(&self, ui: &mut Ui, rect: Rect, ink: Color32, p: &Palette) {
        let content = self.content_width(ui);
        let available = rect.width() - if self.kind == Kind::Link { 0.0 } else { 2.0 * space::XS };
        let shrink = (content - available).max(0.0);
        let mut x = (rect.center().x - (content - shrink) / 2.0).round();
        let y = rect.center().y;
        let glyph = self.icon_size();
        if self.busy {
            spinner(ui, pos2(x + glyph / 2.0, y), glyph / 2.0 - 2.0, ink);
            x += glyph + space::S;
        } else if let Some((name, filled)) = self.glyph {
            icon(ui, pos2(x + glyph / 2.0, y), name, filled, glyph, ink);
            x += glyph + space::S;
        }
        if !self.label.is_empty() {
            let font = self.font();
            let w = width(ui, &self.label, font.clone());
            let galley = layout(ui, &self.label, font, ink, (w - shrink).max(8.0) + 0.5, 1);
            let top = (y - galley.size().y / 2.0).round();
            let advance = galley.size().x;
            ui.painter().galley(pos2(x, top), galley, ink);
            x += advance + space::S;
        }
        if self.warn {
            icon(ui, pos2(x + 8.0, y), icons::WARNING, true, 16.0, p.warn_text);
        } else if let Some(level) = self.level {
            level_bars(ui, pos2(x, y), level, p);
        }
        if let Some(trailing) = self.trailing {
            icon(ui, pos2(x + 7.0, y), trailing, false, 14.0, ink);
        }
    }
}

/// Mixes `share` of `b` into `a`.
pub fn mix(a: Color32, b: Color32, share: f32) -> Color32 {
    let m = |x: u8, y: u8| (f32::from(x) + (f32::from(y) - f32::from(x)) * share).round() as u8;
    Color32::from_rgba_premultiplied(m(a.r(), b.r()), m(a.g(), b.g()), m(a.b(), b.b()), m(a.a(), b.a()))
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

/// How a field is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As usual.
    Calm,
    /// Something to look at.
    Warn,
    /// Cannot be used as it is.
    Wrong,
}

fn mood_color(mood: Mood, p: &Palette) -> Color32 {
    match mood {
        Mood::Calm => p.border_strong,
        Mood::Warn => p.warn_text,
        Mood::Wrong => p.danger_text,
    }
}

/// A one-line field with an icon in front.
pub struct Field<'a> {
    /// Tells it from others on the screen.
    pub salt: &'a str,
    /// Icon in front, if any.
    pub glyph: Option<&'a str>,
    /// What it is, for the screen reader.
    pub name: &'a str,
    /// Shown while empty.
    pub hint: &'a str,
    /// Frame.
    pub mood: Mood,
    /// Text size.
    pub font_size: f32,
    /// Shows dots.
    pub password: bool,
}

impl Field<'_> {
    /// The id its text edit has, to focus it.
    pub fn id(salt: &str) -> Id {
        Id::unique(salt)
    }

    /// Draws it. `changed()` and `lost_focus()` of the answer say what happened.
    pub fn show(self, ui: &mut Ui, rect: Rect, value: &mut String) -> Response {
        let p = theme::palette(ui.ctx());
        let id = Self::id(self.salt);
        let focused = ui.memory(|m| m.has_focus(id));
        let r = radius::BUTTON;
        let stroke = if focused { Stroke::NONE } else { Stroke::new(1.0, mood_color(self.mood, p)) };
        ui.painter().rect(rect, CornerRadius::same(r), p.field, stroke, StrokeKind::Inside);
        if focused {
            ui.painter().rect_stroke(
                rect.expand(0.0),
                CornerRadius::same(r),
                Stroke::new(2.0, p.focus),
                StrokeKind::Outside,
            );
        }
        let mut left = rect.left() + space::M;
        if let Some(glyph) = self.glyph {
            icon(ui, pos2(left + 10.0, rect.center().y), glyph, false, 18.0, p.text3);
            left += 28.0;
        }
        let inner_h = size::line(self.font_size);
        let inner = Rect::from_min_max(
            pos2(left, (rect.center().y - inner_h / 2.0).round()),
            pos2(rect.right() - space::M, (rect.center().y + inner_h / 2.0).round()),
        );
        // A click anywhere in the frame goes into the text.
        let around = ui.interact(rect, id.with("frame"), Sense::CLICK);
        if around.clicked() {
            ui.memory_mut(|m| m.request_focus(id));
        }
        if around.hovered() {
            ui.ctx().set_cursor_icon(egui::CursorIcon::Text);
        }
        let edit = egui::TextEdit::singleline(value)
            .id(id)
            .frame(egui::Frame::NONE)
            .margin(egui::Margin::ZERO)
            .font(theme::regular(self.font_size))
            .text_color(p.text)
            .password(self.password)
            .char_limit(4096)
            .hint_text(egui::RichText::new(self.hint).color(p.text3).font(theme::regular(self.font_size)))
            .desired_width(inner.width())
            .align(egui::Align2::LEFT_CENTER);
        let name = self.name.to_owned();
        ui.scope_builder(
            egui::UiBuilder::new().max_rect(inner).layout(egui::Layout::left_to_right(egui::Align::Center)),
            |ui| {
                ui.spacing_mut().interact_size.y = 0.0;
                ui.add(edit)
            },
        )
        .inner
        .accessible_name(name)
    }
}

/// What a choice shows: the chosen name, a word at the right, and a caret.
pub struct Choice<'a> {
    /// Tells it from others on the screen.
    pub salt: &'a str,
    /// Icon in front.
    pub glyph: &'a str,
    /// What is chosen here, for the screen reader.
    pub name: &'a str,
    /// The chosen one.
    pub value: &'a str,
    /// A word at the right, `In use` for example.
    pub note: &'a str,
    /// Frame and color of the word.
    pub mood: Mood,
}

impl Choice<'_> {
    /// Draws it; a click opens the menu, which the caller draws with [`menu`].
    pub fn show(self, ui: &mut Ui, rect: Rect) -> Response {
        let p = theme::palette(ui.ctx());
        let id = ui.make_persistent_id(self.salt);
        let response = ui.interact(rect, id, Sense::click());
        response.widget_info(|| {
            let mut info = WidgetInfo::labeled(Role::ComboBox, true, format!("{}: {}", self.name, self.value));
            info.current_text_value = Some(self.value.to_owned());
            info
        });
        let fill = if response.hovered() { mix(p.field, p.hover, 0.5) } else { p.field };
        ui.painter().rect(
            rect,
            CornerRadius::same(radius::BUTTON),
            fill,
            Stroke::new(1.0, mood_color(self.mood, p)),
            StrokeKind::Inside,
        );
        let y = rect.center().y;
        icon(ui, pos2(rect.left() + 22.0, y), self.glyph, false, 18.0, p.text3);
        icon(ui, pos2(rect.right() - 20.0, y), icons::CARET_DOWN, false, 14.0, p.text2);
        let mut right = rect.right() - 36.0;
        if !self.note.is_empty() {
            let color = if self.mood == Mood::Calm { p.text3 } else { mood_color(self.mood, p) };
            let galley = layout(ui, self.note, theme::regular(size::CAPTION), color, 120.0, 1);
            right -= galley.size().x;
            ui.painter().galley(pos2(right, (y - galley.size().y / 2.0).round()), galley, color);
            right -= space::S;
        }
        let left = rect.left() + 41.0;
        let galley = layout(ui, self.value, theme::regular(size::BODY), p.text, (right - left).max(8.0), 1);
        ui.painter().galley(pos2(left, (y - galley.size().y / 2.0).round()), galley, p.text);
        if response.has_focus() {
            focus_ring(ui, rect, radius::BUTTON);
        }
        response
    }
}

/// One part of a menu: a heading and rows, the chosen one marked.
pub struct Section {
    /// Heading, may be empty.
    pub title: String,
    /// Texts, and which is chosen.
    pub rows: Vec<(String, bool)>,
}

/// A menu under (or over) the control that opened it. Returns section and row of what was chosen.
pub fn menu(opener: &Response, width_pt: f32, above: bool, name: &str, sections: &[Section]) -> Option<(usize, usize)> {
    let mut chosen = None;
    let align = if above { egui::RectAlign::TOP_START } else { egui::RectAlign::BOTTOM_START };
    let others = [
        egui::RectAlign::TOP_START,
        egui::RectAlign::BOTTOM_START,
        egui::RectAlign::TOP_END,
        egui::RectAlign::BOTTOM_END,
    ];
    egui::Popup::menu(opener)
        .align(align)
        .align_alternatives(&others)
        .gap(6.0)
        .accessible_name(name)
        .width(width_pt)
        .show(|ui| {
            ui.spacing_mut().item_spacing = vec2(0.0, 2.0);
            ui.set_min_width(width_pt);
            let p = theme::palette(ui.ctx());
            for (s, section) in sections.iter().enumerate() {
                if !section.title.is_empty() {
                    let (rect, _) = ui.allocate_exact_size(vec2(width_pt, 24.0), Sense::hover());
                    let at = rect.left_center() + vec2(space::S, 0.0);
                    line(ui, at, Align2::LEFT_CENTER, &section.title, theme::medium(size::CAPTION), p.text3, width_pt);
                }
                for (i, (label, selected)) in section.rows.iter().enumerate() {
                    let (rect, response) = ui.allocate_exact_size(vec2(width_pt, height::BUTTON), Sense::click());
                    response.widget_info(|| WidgetInfo::selected(Role::MenuItemRadio, true, *selected, label));
                    if response.hovered() || response.has_focus() {
                        ui.painter().rect_filled(rect, CornerRadius::same(radius::CHIP), p.hover);
                    }
                    if response.has_focus() {
                        ui.painter().rect_stroke(
                            rect,
                            CornerRadius::same(radius::CHIP),
                            Stroke::new(2.0, p.focus),
                            StrokeKind::Inside,
                        );
                    }
                    if *selected {
                        icon(ui, pos2(rect.left() + 18.0, rect.center().y), icons::CHECK, false, 16.0, p.accent_text);
                    }
                    let galley = layout(ui, label, theme::regular(size::BODY), p.text, width_pt - 48.0, 1);
                    ui.painter().galley(
                        pos2(rect.left() + 36.0, (rect.center().y - galley.size().y / 2.0).round()),
                        galley,
                        p.text,
                    );
                    if response.clicked() {
                        chosen = Some((s, i));
                        ui.close();
                    }
                }
            }
        });
    chosen
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
