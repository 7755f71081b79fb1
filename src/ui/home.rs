//! The first screen: my name, join a session, start a room here, recent sessions.

use egui::{Align2, CornerRadius, Rect, Sense, Stroke, StrokeKind, Ui, pos2, vec2};

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
        let p = theme::palette(ui.ctx());
        ui.painter().rect_filled(ui.max_rect(), CornerRadius::ZERO, p.surface);
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

    #[allow(clippy::too_many_arguments)]
    fn server_line(
        &mut self,
        ui: &mut Ui,
        backend: &mut dyn Backend,
        prefs: &mut Preferences,
        x: f32,
        y: f32,
        w: f32,
        narrow: bool,
    ) {
        let p = theme::palette(ui.ctx());
        let cy = y + 12.0;
        widgets::icon(ui, pos2(x + 8.0, cy), icons::HARD_DRIVES, false, 16.0, p.text3);
        let label = widgets::line(
            ui,
            pos2(x + 22.0, cy),
            Align2::LEFT_CENTER,
            &t("home.server"),
            theme::regular(size::CAPTION),
            p.text2,
            120.0,
        );
        let chosen =
            prefs.servers.first().map_or_else(|| t("home.server_none").into_owned(), |s| input::host_of(&s.url));
        let spoken = format!("{}: {chosen}", t("home.server_title"));
        let button = Button::new("home.server", Kind::Link, chosen)
            .name(spoken)
            .font_size(size::CAPTION)
            .trailing(icons::CARET_DOWN);
        let bw = button.width(ui).min(w / 2.0);
        let rect = Rect::from_min_size(pos2(label.right() + 6.0, cy - 12.0), vec2(bw, 24.0));
        let response = button.show(ui, rect);
        if !narrow {
            let left = rect.right() + space::L;
            widgets::line(
                ui,
                pos2(left, cy),
                Align2::LEFT_CENTER,
                &t("home.pasted"),
                theme::regular(size::CAPTION),
                p.text3,
                x + w - left,
            );
        }
        egui::Popup::from_toggle_button_response(&response)
            .align(egui::RectAlign::BOTTOM_START)
            .gap(6.0)
            .close_behavior(egui::PopupCloseBehavior::CloseOnClickOutside)
            .accessible_name(t("home.server_title"))
            .frame(egui::Frame::popup(ui.style()).inner_margin(space::L))
            .show(|ui| self.server_menu(ui, backend, prefs));
    }

    fn server_menu(&mut self, ui: &mut Ui, backend: &mut dyn Backend, prefs: &mut Preferences) {
        let p = theme::palette(ui.ctx());
        let w = 320.0_f32.min(ui.ctx().content_rect().width() - 64.0);
        ui.set_width(w);
        ui.spacing_mut().item_spacing.y = space::XS;
        let mut choose = None;
        for (i, server) in prefs.servers.iter().enumerate() {
            let (rect, response) = ui.allocate_exact_size(vec2(w, height::BUTTON), Sense::click());
            response.widget_info(|| egui::WidgetInfo::selected(egui::Role::RadioButton, true, i == 0, &server.url));
            if response.hovered() {
                ui.painter().rect_filled(rect, CornerRadius::same(6), p.hover);
            }
            if response.has_focus() {
                widgets::focus_ring(ui, rect.shrink(3.0), 6);
            }
            if i == 0 {
                widgets::icon(ui, pos2(rect.left() + 14.0, rect.center().y), icons::CHECK, false, 16.0, p.accent_text);
            }
            widgets::line(
                ui,
                pos2(rect.left() + 32.0, rect.center().y),
                Align2::LEFT_CENTER,
                &server.url,
                theme::regular(size::BODY),
                p.text,
                w - 40.0,
            );
            if response.clicked() {
                choose = Some(i);
            }
        }
        if let Some(i) = choose {
            let server = prefs.servers.remove(i);
            prefs.servers.insert(0, server);
            ui.close();
        }
        for (salt, label, hint, password) in [
            ("home.server.address", t("home.server_field"), t("home.server_hint"), false),
            ("home.server.secret", t("home.secret_field"), t("home.secret_hint"), true),
        ] {
            let (rect, _) = ui.allocate_exact_size(vec2(w, 20.0), Sense::hover());
            widgets::line(ui, rect.left_center(), Align2::LEFT_CENTER, &label, theme::medium(size::LABEL), p.text2, w);
            let (rect, _) = ui.allocate_exact_size(vec2(w, height::FIELD), Sense::hover());
            let value = if password { &mut self.secret } else { &mut self.server };
            let mood = if self.server_bad && !password { Mood::Wrong } else { Mood::Calm };
            let field = Field { salt, glyph: None, name: &label, hint: &hint, mood, font_size: size::BODY, password };
            if field.show(ui, rect, value).changed() {
                self.server_bad = false;
            }
            ui.add_space(space::XS);
        }
        if self.server_bad {
            let at = ui.cursor().min;
            let r = widgets::paragraph(
                ui,
                at,
                Align2::LEFT_TOP,
                &t("home.server_bad"),
                theme::regular(size::CAPTION),
                p.danger_text,
                w,
            );
            ui.allocate_rect(r, Sense::hover());
        }
        let (rect, _) = ui.allocate_exact_size(vec2(w, height::BUTTON), Sense::hover());
        let save = Button::new("home.server.save", Kind::Primary, t("button.save"))
            .enabled(!self.server.trim().is_empty(), "");
        let sw = save.width(ui);
        if save.show(ui, Rect::from_min_size(pos2(rect.right() - sw, rect.top()), vec2(sw, height::BUTTON))).clicked() {
            match input::server_address(&self.server) {
                Some(url) => {
                    let own_certificate = prefs.servers.iter().any(|s| s.url == url && s.own_certificate);
                    prefs.servers.retain(|s| s.url != url);
                    if !self.secret.is_empty() {
                        backend.set_secret(&url, std::mem::take(&mut self.secret));
                    }
                    prefs.servers.insert(0, Server { url, own_certificate });
                    prefs.servers.truncate(20);
                    self.server.clear();
                    ui.close();
                }
                None => self.server_bad = true,
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn room_card(
        &mut self,
        ui: &mut Ui,
        backend: &mut dyn Backend,
        prefs: &mut Preferences,
        x: f32,
        y: f32,
        w: f32,
        narrow: bool,
    ) -> f32 {
        let p = theme::palette(ui.ctx());
        let pad = if narrow { space::M } else { 20.0 };
        let state = backend.room();
        let failure = match (&state, self.awaiting_room) {
            (RoomState::Failed(failure), _) => Some(failure.clone()),
            _ => None,
        };
        let starting = matches!(state, RoomState::Starting) && self.awaiting_room;
        let icon_size = if narrow { 36.0 } else { 44.0 };
        let text_x = x + pad + icon_size + space::L;
        let text_w = x + w - pad - text_x;
        let body = t("home.room_text").into_owned();
        let probe = ui.painter().layout(body.clone(), theme::regular(size::BODY), p.text2, text_w);
        let body_h = probe.rows.len() as f32 * 20.0;
        let text_h = 22.0 + 2.0 + body_h;
        let mut h = pad + text_h.max(icon_size) + space::L + height::FIELD + pad;
        let error_galley = failure.as_ref().map(widgets::failure_text);
        if error_galley.is_some() {
            h += 84.0;
        }
        let rect = Rect::from_min_size(pos2(x, y), vec2(w, h));
        widgets::card(ui, rect, p);
        let icon_rect = Rect::from_min_size(pos2(x + pad, y + pad), vec2(icon_size, icon_size));
        ui.painter().rect_filled(icon_rect, CornerRadius::same(8), p.accent_soft);
        widgets::icon(ui, icon_rect.center(), icons::BROADCAST, false, 24.0, p.accent_text);
        widgets::line(
            ui,
            pos2(text_x, y + pad),
            Align2::LEFT_TOP,
            &t("home.room_title"),
            theme::semibold(size::TITLE),
            p.text,
            text_w,
        );
        widgets::paragraph(
            ui,
            pos2(text_x, y + pad + 24.0),
            Align2::LEFT_TOP,
            &body,
            theme::regular(size::BODY),
            p.text2,
            text_w,
        );
        let row = y + pad + text_h.max(icon_size) + space::L;
        let start = Button::new(
            "home.start",
            Kind::Outline,
            if starting { t("home.room_starting") } else { t("home.room_start") },
        )
        .busy(starting)
        .enabled(!self.room.trim().is_empty(), t("home.room_field"));
        let sw = start.width(ui);
        let field = Rect::from_min_max(pos2(x + pad, row), pos2(x + w - pad - sw - space::S, row + height::FIELD));
        let name = t("home.room_field");
        let edit = Field {
            salt: "home.room",
            glyph: None,
            name: &name,
            hint: &name,
            mood: Mood::Calm,
            font_size: size::BODY,
            password: false,
        }
        .show(ui, field, &mut self.room);
        let entered = edit.lost_focus() && ui.input(|i| i.key_pressed(egui::Key::Enter));
        let pressed =
            start.show(ui, Rect::from_min_size(pos2(x + w - pad - sw, row), vec2(sw, height::FIELD))).clicked();
        if (entered || pressed) && !starting && !self.room.trim().is_empty() {
            let name = room_name(&self.room);
            self.room.clone_from(&name);
            prefs.room_name.clone_from(&name);
            self.awaiting_room = true;
            backend.start_room(&name, 0);
        }
        if let (Some(failure), Some((title, sentence))) = (failure, error_galley) {
            let other = failure.values.iter().find(|(k, _)| *k == "next").map(|(_, v)| v.clone());
            let label = other
                .as_ref()
                .map_or_else(|| t("button.try_again").into_owned(), |port| tv("button.use_port", &[("next", port)]));
            let at = pos2(x + pad, row + height::FIELD + space::M);
            let (_, again) = widgets::note(
                ui,
                at,
                w - 2.0 * pad,
                Mood::Wrong,
                &format!("{title}. {sentence}"),
                Some(("home.port", &label)),
            );
            if again {
                self.awaiting_room = true;
                backend.start_room(&room_name(&self.room), other.and_then(|p| p.parse().ok()).unwrap_or(0));
            }
        }
        rect.bottom()
    }

    fn recent(&mut self, ui: &mut Ui, prefs: &Preferences, x: f32, y: &mut f32, w: f32) -> Option<Outcome> {
        let p = theme::palette(ui.ctx());
        let shown = prefs.recent.len().min(6);
        let rows = if shown == 0 { 1 } else { shown };
        let row_h = 45.0;
        let rect = Rect::from_min_size(pos2(x, *y), vec2(w, rows as f32 * row_h + space::S));
        widgets::card(ui, rect, p);
        let mut outcome = None;
        if shown == 0 {
            let r = widgets::paragraph(
                ui,
                pos2(x + space::L, *y + space::L),
                Align2::LEFT_TOP,
                &t("home.recent_empty"),
                theme::regular(size::BODY),
                p.text3,
                w - 2.0 * space::L,
            );
            let bottom = r.bottom() + space::L;
            if bottom > rect.bottom() {
                widgets::card(ui, Rect::from_min_max(rect.min, pos2(rect.right(), bottom)), p);
                widgets::paragraph(
                    ui,
                    r.min,
                    Align2::LEFT_TOP,
                    &t("home.recent_empty"),
                    theme::regular(size::BODY),
                    p.text3,
                    w - 2.0 * space::L,
                );
            }
            *y = bottom.max(rect.bottom());
            return None;
        }
        for (i, recent) in prefs.recent.iter().take(6).enumerate() {
            let row = Rect::from_min_size(pos2(x + 4.0, *y + 4.0 + i as f32 * row_h), vec2(w - 8.0, row_h));
            let id = ui.make_persistent_id(("home.recent", i));
            let response = ui.interact(row, id, Sense::click());
            let spoken = format!("{} {}, {}", t("button.join"), recent.session, recent.host);
            response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, &spoken));
            if response.hovered() {
                ui.painter().rect_filled(row, CornerRadius::same(8), p.hover);
                ui.ctx().set_cursor_icon(egui::CursorIcon::PointingHand);
            }
            if response.has_focus() {
                widgets::focus_ring(ui, row.shrink(4.0), 8);
            }
            if i > 0 {
                ui.painter().hline((x + space::M)..=(x + w - space::M), row.top(), Stroke::new(1.0, p.border));
            }
            let cy = row.center().y;
            widgets::icon(ui, pos2(x + 22.0, cy), icons::CLOCK_COUNTER_CLOCKWISE, false, 16.0, p.text3);
            let when = ago(recent.at_unix_ms);
            let right = widgets::line(
                ui,
                pos2(x + w - space::L, cy),
                Align2::RIGHT_CENTER,
                &when,
                theme::regular(size::CAPTION),
                p.text3,
                120.0,
            );
            let name = widgets::line(
                ui,
                pos2(x + 43.0, cy),
                Align2::LEFT_CENTER,
                &recent.session,
                theme::medium(size::BODY),
                p.text,
                w * 0.5,
            );
            let left = name.right() + 6.0;
            widgets::line(
                ui,
                pos2(left, cy + 1.0),
                Align2::LEFT_CENTER,
                &recent.host,
                theme::regular(size::CAPTION),
                p.text3,
                right.left() - left - space::S,
            );
            if response.clicked() {
                let server =
                    prefs.servers.iter().find(|s| input::host_of(&s.url) == recent.host).map(|s| s.url.clone());
                match server {
                    Some(server) => {
                        outcome = Some(Outcome::Lobby(Target::Session { server, name: recent.session.clone() }))
                    }
                    None => {
                        // The link is not kept: the name is put into the field, and the line under it says what is missing.
                        self.typed.clone_from(&recent.session);
                        self.error = Some("home.need_server");
                    }
                }
            }
        }
        *y = rect.bottom();
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
    ui.painter().rect(rect, CornerRadius::same(8), p.field, Stroke::new(1.0, p.border_strong), StrokeKind::Inside);
    let choices = [
        (ThemeChoice::Dark, "home.theme_dark"),
        (ThemeChoice::Light, "home.theme_light"),
        (ThemeChoice::System, "home.theme_system"),
    ];
    let cell = (w - 4.0) / 3.0;
    for (i, (choice, key)) in choices.into_iter().enumerate() {
        let r =
            Rect::from_min_size(pos2(rect.left() + 2.0 + i as f32 * cell, rect.top() + 2.0), vec2(cell, height::HIT));
        let response = ui.interact(r, ui.make_persistent_id(key), Sense::click());
        let on = prefs.theme == choice;
        response.widget_info(|| egui::WidgetInfo::selected(egui::Role::RadioButton, true, on, t(key)));
        if on || response.hovered() {
            ui.painter().rect_filled(r, CornerRadius::same(6), if on { p.pressed } else { p.hover });
        }
        if response.has_focus() {
            widgets::focus_ring(ui, r.shrink(3.0), 6);
        }
        let galley = widgets::layout(ui, &t(key), theme::medium(size::LABEL), p.text, cell - 8.0, 1);
        let at = r.center() - galley.size() / 2.0;
        ui.painter().galley(pos2(at.x.round(), at.y.round()), galley, p.text);
        if response.clicked() {
            prefs.theme = choice;
        }
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
    if base == "room" { "my-room".to_owned() } else { format!("{base}-desk") }
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
