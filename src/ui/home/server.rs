//! The server chooser.

use super::*;

impl Home {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn server_line(
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

    pub(super) fn server_menu(&mut self, ui: &mut Ui, backend: &mut dyn Backend, prefs: &mut Preferences) {
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
}
