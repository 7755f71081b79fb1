//! Starting a room here, and recent sessions.

use super::*;

impl Home {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn room_card(
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
            h += space::M + self.note_h;
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
            let (note_h, again) = widgets::note(
                ui,
                at,
                w - 2.0 * pad,
                Mood::Wrong,
                &format!("{title}. {sentence}"),
                Some(("home.port", &label)),
            );
            if (note_h - self.note_h).abs() > 0.5 {
                self.note_h = note_h;
                ui.ctx().request_repaint();
            }
            if again {
                self.awaiting_room = true;
                backend.start_room(&room_name(&self.room), other.and_then(|p| p.parse().ok()).unwrap_or(0));
            }
        }
        rect.bottom()
    }

    pub(super) fn recent(&mut self, ui: &mut Ui, prefs: &Preferences, x: f32, y: &mut f32, w: f32) -> Option<Outcome> {
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
