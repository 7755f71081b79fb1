//! Fields, choices and menus.

use super::*;

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
        // A child of its own: the place of the field is the caller's business.
        let mut child = ui.new_child(
            egui::UiBuilder::new()
                .max_rect(inner)
                .layout(egui::Layout::left_to_right(egui::Align::Center))
                .id_salt(self.salt),
        );
        child.spacing_mut().interact_size.y = 0.0;
        child.add(edit).accessible_name(name)
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

/// A row of choices of which one is on, all visible, as wide as they need or (`fill`) as there is room. Returns the one that was
/// pressed.
pub fn segments(ui: &mut Ui, salt: &str, rect: Rect, labels: &[&str], on: usize, fill: bool) -> Option<usize> {
    let p = theme::palette(ui.ctx());
    let font = theme::medium(size::LABEL);
    let widest = labels.iter().map(|l| width(ui, l, font.clone())).fold(0.0, f32::max) + 2.0 * space::L;
    let most = (rect.width() - 4.0) / labels.len().max(1) as f32;
    let cell = if fill { most } else { widest.min(most).floor() };
    let track = Rect::from_min_size(rect.min, vec2(cell * labels.len() as f32 + 4.0, rect.height()));
    let edge = Stroke::new(1.0, p.border_strong);
    ui.painter().rect(track, CornerRadius::same(radius::BUTTON), p.field, edge, StrokeKind::Inside);
    let mut pressed = None;
    for (i, label) in labels.iter().enumerate() {
        let at = pos2(track.left() + 2.0 + i as f32 * cell, track.top() + 2.0);
        let r = Rect::from_min_size(at, vec2(cell, track.height() - 4.0));
        let response = ui.interact(r, ui.make_persistent_id((salt, i)), Sense::click());
        let chosen = i == on;
        response.widget_info(|| WidgetInfo::selected(Role::RadioButton, true, chosen, *label));
        if chosen || response.hovered() {
            let fill = if chosen { p.pressed } else { p.hover };
            ui.painter().rect_filled(r, CornerRadius::same(radius::CHIP), fill);
        }
        if response.has_focus() {
            focus_ring(ui, r.shrink(3.0), radius::CHIP);
        }
        let galley = layout(ui, label, font.clone(), p.text, cell - space::S, 1);
        let at = r.center() - galley.size() / 2.0;
        ui.painter().galley(pos2(at.x.round(), at.y.round()), galley, p.text);
        if response.clicked() {
            pressed = Some(i);
        }
    }
    pressed
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
