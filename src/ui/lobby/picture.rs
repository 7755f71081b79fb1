//! Own picture, its controls, and what is wrong with the camera.

use super::*;

impl Lobby {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn left(
        &mut self,
        ui: &mut Ui,
        backend: &mut dyn Backend,
        prefs: &mut Preferences,
        video: &mut Video,
        choice: &DeviceChoice,
        pos: egui::Pos2,
        w: f32,
        narrow: bool,
    ) -> f32 {
        let p = theme::palette(ui.ctx());
        let preview = backend.preview();
        let h = (w * 9.0 / 16.0).round();
        let rect = Rect::from_min_size(pos, vec2(w, h));
        let no_camera = matches!(backend.cameras(), Devices::Known(list) if list.is_empty()) && choice.camera.is_none();
        let problem = match &preview.camera {
            DeviceState::Failed(failure) if !self.camera_off => Some(failure.clone()),
            _ if no_camera && !self.camera_off => {
                Some(Failure { key: "dev.cam_none", values: Vec::new(), detail: String::new() })
            }
            _ => None,
        };
        let failed = problem.is_some();
        let mut retry = false;
        if let Some(failure) = problem {
            ui.painter().rect(
                rect,
                CornerRadius::same(theme::radius::TILE),
                p.raised,
                Stroke::new(1.0, p.border),
                egui::StrokeKind::Inside,
            );
            retry = self.camera_problem(ui, rect, &failure, narrow);
        } else {
            let look = video::camera(ui, prefs.mirror, 1.0);
            let shown = !self.camera_off && video.show(ui, "preview", &preview.frames, rect, look);
            if !shown {
                ui.painter().rect_filled(rect, CornerRadius::same(theme::radius::TILE), p.tile_off);
                let opening = !self.camera_off && choice.camera.as_deref().is_some_and(|c| c != NONE);
                if opening {
                    widgets::spinner(ui, rect.center() - vec2(0.0, 16.0), 12.0, p.text2);
                    widgets::line(
                        ui,
                        rect.center() + vec2(0.0, 16.0),
                        Align2::CENTER_CENTER,
                        &t("dev.opening"),
                        theme::regular(size::BODY),
                        p.text2,
                        w,
                    );
                } else {
                    widgets::avatar(ui, rect.center(), (h * 0.3).min(112.0), &prefs.name);
                }
            }
            let name = crate::ui::text::clean(prefs.name.trim());
            let id = ui.make_persistent_id("lobby.preview");
            let state = if shown { t("tile.camera_on") } else { t("lobby.camera_off") };
            ui.interact(rect, id, Sense::hover()).widget_info(|| {
                egui::WidgetInfo::labeled(egui::Role::Image, true, format!("{}: {state}", t("lobby.preview")))
            });
            if !name.is_empty() {
                crate::ui::tile::plate(ui, rect, None, &name, None);
            }
        }

        // The controls under the picture.
        let y = rect.bottom() + space::M;
        let level = widgets::meter_share(preview.level.dbfs());
        // Without a microphone nothing may look live.
        let no_mic = choice.microphone.as_deref().is_none_or(|m| m == NONE)
            || matches!(&preview.microphone, DeviceState::Failed(f) if f.key != "dev.mic_silent");
        let mic_off = self.muted || no_mic;
        let mic_name = match (no_mic, self.muted) {
            (true, _) => t("lobby.no_microphone"),
            (false, true) => t("cmd.mic_unmute"),
            (false, false) => t("cmd.mic_mute"),
        };
        let mic = Button::icon_only(
            "lobby.mic",
            if mic_off { Kind::ControlMuted } else { Kind::Control },
            if mic_off { icons::MICROPHONE_SLASH } else { icons::MICROPHONE },
            true,
            mic_name,
        )
        .key(commands::key_text(ui.ctx(), Command::MicToggle))
        .toggled(!mic_off)
        .warn(no_mic);
        let mic = if mic_off { mic } else { mic.level(Some(level)) };
        let cam_name = if self.camera_off { t("cmd.cam_start") } else { t("cmd.cam_stop") };
        let cam = Button::icon_only(
            "lobby.cam",
            if self.camera_off || failed { Kind::ControlMuted } else { Kind::Control },
            if self.camera_off || failed { icons::VIDEO_CAMERA_SLASH } else { icons::VIDEO_CAMERA },
            true,
            cam_name,
        )
        .key(commands::key_text(ui.ctx(), Command::CamToggle))
        .toggled(!self.camera_off);
        let mirror_kind = if prefs.mirror { Kind::ControlOn } else { Kind::Control };
        let mirror = if narrow {
            Button::icon_only("lobby.mirror", mirror_kind, icons::FLIP_HORIZONTAL, false, t("lobby.mirror"))
        } else {
            Button::new("lobby.mirror", mirror_kind, t("lobby.mirror")).icon(icons::FLIP_HORIZONTAL, false)
        }
        .enabled(!self.camera_off && !failed, t("lobby.camera_off"))
        .toggled(prefs.mirror);
        let widths = [if mic_off && !no_mic { 64.0 } else { mic.width(ui).max(69.0) }, 48.0, mirror.width(ui)];
        let divider = 25.0;
        let total = widths.iter().sum::<f32>() + space::S + divider;
        let mut x = (rect.center().x - total / 2.0).round();
        let [mw, cw, rw] = widths;
        let place = |x: f32, w: f32| Rect::from_min_size(pos2(x, y), vec2(w, height::CONTROL));
        if mic.show(ui, place(x, mw)).clicked() {
            self.muted = !self.muted;
        }
        x += mw + space::S;
        if cam.show(ui, place(x, cw)).clicked() {
            self.camera_off = !self.camera_off;
        }
        x += cw + divider / 2.0;
        ui.painter().vline(x.round() + 0.5, (y + 8.0)..=(y + 36.0), Stroke::new(1.0, p.border));
        x += divider / 2.0;
        if mirror.show(ui, place(x, rw)).clicked() {
            prefs.mirror = !prefs.mirror;
        }
        if retry {
            self.asked = None;
        }
        let mut bottom = y + height::CONTROL;
        if !narrow {
            let cy = bottom + space::L + 8.0;
            widgets::icon(ui, pos2(pos.x + 8.0, cy), icons::EYE_SLASH, false, 16.0, p.text3);
            widgets::line(
                ui,
                pos2(pos.x + 24.0, cy),
                Align2::LEFT_CENTER,
                &t("lobby.private"),
                theme::regular(size::CAPTION),
                p.text3,
                w - 24.0,
            );
            bottom = cy + 8.0;
        }
        bottom - pos.y
    }

    /// Returns whether to try again.
    pub(super) fn camera_problem(&mut self, ui: &mut Ui, rect: Rect, failure: &Failure, narrow: bool) -> bool {
        let p = theme::palette(ui.ctx());
        let (title, sentence) = widgets::failure_text(failure);
        let w = (rect.width() - space::XXL).min(420.0);
        let lines = ui.painter().layout(sentence.clone(), theme::regular(size::BODY), p.text2, w).rows.len() as f32;
        let content = 44.0 + 22.0 + space::M + lines * 20.0 + space::L + height::BUTTON;
        let mut y = rect.center().y - content / 2.0;
        if !narrow {
            widgets::icon(ui, pos2(rect.center().x, y + 16.0), icons::VIDEO_CAMERA_SLASH, false, 40.0, p.warn_text);
        }
        y += 44.0;
        widgets::line(
            ui,
            pos2(rect.center().x, y),
            Align2::CENTER_TOP,
            &title,
            theme::semibold(size::TITLE),
            p.text,
            rect.width() - space::XXL,
        );
        y += 22.0 + space::M;
        widgets::paragraph(
            ui,
            pos2(rect.center().x, y),
            Align2::CENTER_TOP,
            &sentence,
            theme::regular(size::BODY),
            p.text2,
            w,
        );
        y += lines * 20.0 + space::L;
        let again =
            Button::new("lobby.cam.again", Kind::Secondary, t("button.try_again")).icon(icons::ARROW_CLOCKWISE, false);
        let without = Button::new("lobby.cam.without", Kind::Quiet, t("button.without_video"));
        let (aw, ww) = (again.width(ui), without.width(ui));
        let x = rect.center().x - (aw + space::S + ww) / 2.0;
        let retry = again.show(ui, Rect::from_min_size(pos2(x, y), vec2(aw, height::BUTTON))).clicked();
        if without.show(ui, Rect::from_min_size(pos2(x + aw + space::S, y), vec2(ww, height::BUTTON))).clicked() {
            self.camera_off = true;
        }
        retry
    }
}
