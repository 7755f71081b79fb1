//! The first screen: my name, join a session, start a room here, recent sessions.

mod cards;
mod server;

use egui::{Align2, CornerRadius, Rect, Sense, Stroke, Ui, pos2, vec2};

use super::bridge::{Backend, Preferences, RoomState, Server, Target, ThemeChoice};
use super::text::{t, tv};
use super::theme::{self, height, size, space};
use super::widgets::{self, Button, Field, Kind, Mood};
use super::{icons, input};

/// What the screen keeps between frames.
#[derive(Debug, Default)]
pub struct Home {
    /// Text of the join field.
    pub typed: String,
    /// Key of the text under the join field.
    pub error: Option<&'static str>,
    room: String,
    server: String,
    secret: String,
    server_bad: bool,
    started: bool,
    /// The room that was asked for here, so that its lobby opens once it is up.
    awaiting_room: bool,
    /// Height of the note about a room that did not start, as it was drawn last.
    note_h: f32,
}

/// What the screen asks the program to do.
pub enum Outcome {
    /// Open the lobby of this target.
    Lobby(Target),
}

const COLUMN: f32 = 560.0;
const NARROW: f32 = 640.0;

impl Home {
    /// Draws the screen. `prefs` may be changed; the caller stores it.
    pub fn show(&mut self, ui: &mut Ui, backend: &mut dyn Backend, prefs: &mut Preferences) -> Option<Outcome> {
        if !self.started {
            self.started = true;
            self.room = if prefs.room_name.is_empty() { default_room(&prefs.name) } else { prefs.room_name.clone() };
            let id = Field::id("home.join.field");
            ui.memory_mut(|m| m.request_focus(id));
        }
        let mut outcome = None;
        if self.awaiting_room
            && let RoomState::Open { name, .. } = backend.room()
        {
            self.awaiting_room = false;
            outcome = Some(Outcome::Lobby(Target::Hosted { name }));
        }
        header(ui, prefs);
        let area = Rect::from_min_max(
            pos2(ui.max_rect().left(), ui.max_rect().top() + height::HEADER + 1.0),
            ui.max_rect().max,
        );
        // The scope keeps the ids of the fields the same whatever is drawn before them.
        let mut body = ui.new_child(egui::UiBuilder::new().max_rect(area).id_salt("home"));
        egui::ScrollArea::vertical().auto_shrink(false).show(&mut body, |ui| {
            if let Some(o) = self.body(ui, backend, prefs) {
                outcome = Some(o);
            }
        });
        outcome
    }

    /// The screen with something in the join field already.
    pub fn with_typed(typed: String) -> Self {
        Self { typed, ..Self::default() }
    }

    fn body(&mut self, ui: &mut Ui, backend: &mut dyn Backend, prefs: &mut Preferences) -> Option<Outcome> {
        let p = theme::palette(ui.ctx());
        let mut outcome = None;
        let area = ui.max_rect();
        let narrow = area.width() < NARROW;
        let w = COLUMN.min(area.width() - space::XXL);
        let x = (area.center().x - w / 2.0).round();
        let mut y = ui.min_rect().top() + if narrow { space::L } else { 36.0 };
        let top = y;

        let (font, lead) =
            if narrow { (theme::semibold(size::HEADING), 28.0) } else { (theme::semibold(size::DISPLAY), 34.0) };
        widgets::line(ui, pos2(x, y), Align2::LEFT_TOP, &t("home.title"), font, p.text, w);
        y += lead + space::XS;
        widgets::line(ui, pos2(x, y), Align2::LEFT_TOP, &t("home.hint"), theme::regular(size::BODY), p.text2, w);
        y += 20.0 + space::L;

        let join = Button::new("home.join", Kind::Primary, t("button.join")).enabled(!self.typed.trim().is_empty(), "");
        let join_w = 96.0_f32.max(join.width(ui));
        let field = Rect::from_min_size(pos2(x, y), vec2(w - join_w - space::S, height::MAIN));
        let hint = if narrow { t("home.field_short") } else { t("home.field") };
        let name = t("home.field");
        let edit = Field {
            salt: "home.join.field",
            glyph: Some(icons::LINK),
            name: &name,
            hint: &hint,
            mood: if self.error.is_some() { Mood::Wrong } else { Mood::Calm },
            font_size: size::TITLE,
            password: false,
        }
        .show(ui, field, &mut self.typed);
        if edit.changed() {
            self.error = None;
        }
        let entered = edit.lost_focus() && ui.input(|i| i.key_pressed(egui::Key::Enter));
        let pressed = join.show(ui, Rect::from_min_size(pos2(x + w - join_w, y), vec2(join_w, height::MAIN))).clicked();
        if (entered || pressed) && !self.typed.trim().is_empty() {
            match input::target(&self.typed, prefs.servers.first().map(|s| s.url.as_str())) {
                Ok(target) => outcome = Some(Outcome::Lobby(target)),
                Err(key) => {
                    self.error = Some(key);
                    edit.request_focus();
                }
            }
        }
        y += height::MAIN + space::S;
        if let Some(key) = self.error {
            widgets::icon(ui, pos2(x + 7.0, y + 9.0), icons::WARNING_CIRCLE, true, 14.0, p.danger_text);
            let text = widgets::paragraph(
                ui,
                pos2(x + 22.0, y),
                Align2::LEFT_TOP,
                &t(key),
                theme::regular(size::LABEL),
                p.danger_text,
                w - 22.0,
            );
            y = text.bottom() + space::S;
        }
        self.server_line(ui, backend, prefs, x, y, w, narrow);
        y += 24.0 + space::XL;

        y = self.room_card(ui, backend, prefs, x, y, w, narrow);
        y += space::XL;

        widgets::line(ui, pos2(x, y), Align2::LEFT_TOP, &t("home.recent"), theme::semibold(size::TITLE), p.text, w);
        if !prefs.recent.is_empty() {
            let clear = Button::new("home.clear", Kind::Link, t("home.recent_clear")).font_size(size::LABEL);
            let cw = clear.width(ui);
            if clear.show(ui, Rect::from_min_size(pos2(x + w - cw, y), vec2(cw, 22.0))).clicked() {
                prefs.recent.clear();
            }
        }
        y += 22.0 + space::M;
        if let Some(o) = self.recent(ui, prefs, x, &mut y, w) {
            outcome = Some(o);
        }
        y += space::L;
        widgets::icon(ui, pos2(x + 8.0, y + 8.0), icons::SHIELD_CHECK, false, 16.0, p.text3);
        let line = widgets::paragraph(
            ui,
            pos2(x + 22.0, y),
            Align2::LEFT_TOP,
            &t("home.privacy"),
            theme::regular(size::CAPTION),
            p.text3,
            w - 22.0,
        );
        y = line.bottom() + space::XL;
        ui.allocate_rect(Rect::from_min_max(pos2(area.left(), top), pos2(area.right(), y)), Sense::hover());
        outcome
    }
}

/// Header with the mark and who I am.
fn header(ui: &mut Ui, prefs: &mut Preferences) {
    let p = theme::palette(ui.ctx());
    let area = ui.max_rect();
    let bar = Rect::from_min_size(area.min, vec2(area.width(), height::HEADER));
    let side = if area.width() < NARROW { space::L } else { space::XL };
    ui.painter().hline(area.x_range(), bar.bottom() + 0.5, Stroke::new(1.0, p.border));
    let mark = Rect::from_min_size(pos2(area.left() + side, bar.center().y - 14.0), vec2(28.0, 28.0));
    widgets::mark(ui, mark);
    widgets::line(
        ui,
        pos2(mark.right() + 10.0, bar.center().y),
        Align2::LEFT_CENTER,
        &t("app.name"),
        theme::semibold(size::TITLE),
        p.text,
        160.0,
    );
    let center = pos2(area.right() - side - 16.0, bar.center().y);
    let rect = Rect::from_center_size(center, vec2(32.0, 32.0));
    let response = ui.interact(rect, ui.make_persistent_id("home.me"), Sense::click());
    let spoken =
        if prefs.name.is_empty() { t("home.you_none").into_owned() } else { tv("home.you", &[("name", &prefs.name)]) };
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, &spoken));
    if prefs.name.trim().is_empty() {
        ui.painter().circle(center, 16.0, p.raised, Stroke::new(1.0, p.border_strong));
        widgets::icon(ui, center, icons::USER, false, 18.0, p.text2);
    } else {
        widgets::avatar(ui, center, 32.0, &prefs.name);
    }
    if response.hovered() {
        ui.painter().circle_stroke(center, 17.0, Stroke::new(1.0, p.border_strong));
        ui.ctx().set_cursor_icon(egui::CursorIcon::PointingHand);
    }
    if response.has_focus() {
        ui.painter().circle_stroke(center, 19.0, Stroke::new(2.0, p.focus));
    }
    let name_w = (area.width() - 340.0).clamp(0.0, 240.0);
    if !prefs.name.trim().is_empty() && name_w > 40.0 {
        let shown = super::text::clean(&prefs.name);
        widgets::line(
            ui,
            pos2(rect.left() - space::S, center.y),
            Align2::RIGHT_CENTER,
            &shown,
            theme::medium(size::BODY),
            p.text,
            name_w,
        );
    }
    egui::Popup::from_toggle_button_response(&response)
        .align(egui::RectAlign::BOTTOM_END)
        .gap(8.0)
        .close_behavior(egui::PopupCloseBehavior::CloseOnClickOutside)
        .accessible_name(spoken.clone())
        .frame(egui::Frame::popup(ui.style()).inner_margin(space::L))
        .show(|ui| me_menu(ui, prefs));
    if !egui::Popup::is_id_open(ui.ctx(), egui::Popup::default_response_id(&response)) {
        response.on_hover_text(spoken);
    }
}

fn me_menu(ui: &mut Ui, prefs: &mut Preferences) {
    let p = theme::palette(ui.ctx());
    let w = 264.0;
    ui.set_width(w);
    let label = |ui: &mut Ui, key: &str| {
        let (rect, _) = ui.allocate_exact_size(vec2(w, 20.0), Sense::hover());
        widgets::line(ui, rect.left_center(), Align2::LEFT_CENTER, &t(key), theme::medium(size::LABEL), p.text2, w);
    };
    label(ui, "home.your_name");
    let (rect, _) = ui.allocate_exact_size(vec2(w, height::FIELD), Sense::hover());
    let (name, hint) = (t("home.your_name"), t("lobby.name"));
    let edit = Field {
        salt: "home.me.name",
        glyph: Some(icons::USER),
        name: &name,
        hint: &hint,
        mood: Mood::Calm,
        font_size: size::BODY,
        password: false,
    }
    .show(ui, rect, &mut prefs.name);
    if edit.lost_focus() && ui.input(|i| i.key_pressed(egui::Key::Enter)) {
        ui.close();
    }
    ui.add_space(space::XS);
    label(ui, "home.theme");
    let (rect, _) = ui.allocate_exact_size(vec2(w, height::BUTTON), Sense::hover());
    let choices = [
        (ThemeChoice::Dark, t("home.theme_dark")),
        (ThemeChoice::Light, t("home.theme_light")),
        (ThemeChoice::System, t("home.theme_system")),
    ];
    let labels: Vec<&str> = choices.iter().map(|(_, label)| &**label).collect();
    let on = choices.iter().position(|(choice, _)| *choice == prefs.theme).unwrap_or(0);
    if let Some((choice, _)) = widgets::segments(ui, "home.theme", rect, &labels, on, true).and_then(|i| choices.get(i))
    {
        prefs.theme = *choice;
    }
}

/// A room's name from what was typed: what a session name may hold.
fn room_name(typed: &str) -> String {
    let name: String = typed
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' })
        .take(64)
        .collect();
    let name = name.trim_matches('-').to_owned();
    if name.is_empty() { "room".to_owned() } else { name }
}

fn default_room(name: &str) -> String {
    let base = room_name(&name.to_lowercase());
    // Of a long name the first part tells enough.
    let short = base.char_indices().nth(24).map_or(&*base, |(end, _)| base.get(..end).unwrap_or(&base));
    if base == "room" { "my-room".to_owned() } else { format!("{}-desk", short.trim_end_matches('-')) }
}

fn ago(at_unix_ms: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let days = now / 86_400_000 - (at_unix_ms / 86_400_000).min(now / 86_400_000);
    match days {
        0 => {
            let minutes = now.saturating_sub(at_unix_ms) / 60_000;
            if minutes < 60 {
                super::text::tn("time.minutes", minutes as usize)
            } else {
                super::text::tn("time.hours", (minutes / 60) as usize)
            }
        }
        1 => t("time.yesterday").into_owned(),
        n => super::text::tn("time.days", n as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_names_hold_only_what_a_session_name_may() {
        assert_eq!(room_name(" Ines desk! "), "Ines-desk");
        assert_eq!(room_name("///"), "room");
        assert_eq!(default_room("Ines"), "ines-desk");
        assert_eq!(default_room(""), "my-room");
    }
}
