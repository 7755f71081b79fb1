//! Top bar and control bar with their menus.

use super::*;

impl CallScreen {
    pub(super) fn top_bar(&mut self, ui: &mut Ui, backend: &dyn Backend, view: &View, bar: Rect) {
        let p = theme::palette(ui.ctx());
        let narrow = bar.width() < NARROW;
        let cy = bar.center().y;
        let shield = Rect::from_center_size(pos2(bar.left() + 20.0, cy), vec2(32.0, 32.0));
        let server = if view.server.is_empty() { t("lobby.hosted_here").into_owned() } else { clean(&view.server) };
        let (icon, color, sec, short) = match view.trust {
            Vouched::Certificate => (icons::SHIELD_CHECK, p.text3, "sec.sfu", None),
            Vouched::Nobody => (icons::SHIELD_WARNING, p.warn_text, "sec.nobody", Some("sec.nobody_short")),
            Vouched::Plain => (icons::SHIELD_WARNING, p.warn_text, "sec.plain", Some("sec.plain_short")),
        };
        widgets::icon(ui, shield.center(), icon, true, 16.0, color);
        let sec = tv(sec, &[("host", &server)]);
        let response = ui.interact(shield, ui.make_persistent_id("call.sec"), Sense::hover());
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, &sec));
        response.on_hover_text(sec);

        // Right side first: what is left is for the names.
        let mut right = bar.right() - space::L;
        let people = view.people.len() + 1;
        let count = people.to_string();
        let count_w = widgets::width(ui, &count, theme::medium(size::LABEL));
        let spoken = tn("call.people", people);
        let chip = Rect::from_min_max(pos2(right - count_w - 34.0, cy - 16.0), pos2(right, cy + 16.0));
        widgets::icon(ui, pos2(chip.left() + 12.0, cy), icons::USERS, false, 20.0, p.text2);
        let at = pos2(right - 4.0, cy);
        let galley = widgets::layout(ui, &count, theme::medium(size::LABEL), p.text, 60.0, 1);
        ui.painter().galley(pos2(at.x - galley.size().x, (cy - galley.size().y / 2.0).round()), galley, p.text);
        let response = ui.interact(chip, ui.make_persistent_id("call.people"), Sense::hover());
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, &spoken));
        response.on_hover_text(spoken);
        right = chip.left() - space::M;

        let bars = match &view.connection {
            Connection::Connected => bars_from(view),
            _ => 0,
        };
        let words = match (&view.connection, view.rtt_ms) {
            (Connection::Connected, Some(ms)) => {
                tv("call.rtt", &[("bars", bars.to_string()), ("ms", format!("{ms:.0}"))])
            }
            (Connection::Connected, None) => tv("call.quality", &[("bars", bars.to_string())]),
            _ => t("conn.check").into_owned(),
        };
        let box_ = Rect::from_center_size(pos2(right - 14.0, cy), vec2(32.0, 32.0));
        widgets::quality_bars(ui, box_.center(), bars, p.text2, p.warn_text, p.pressed);
        let response = ui.interact(box_, ui.make_persistent_id("call.quality"), Sense::hover());
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, &words));
        response.on_hover_text(words);
        right = box_.left() - space::M;

        let mut x = bar.left() + 36.0;
        if let Some(short) = short {
            let font = theme::medium(size::CAPTION);
            let warning =
                widgets::line(ui, pos2(x, cy), Align2::LEFT_CENTER, &t(short), font, color, (right - x) * 0.4);
            x = warning.right() + space::M;
        }
        let session = clean(&view.session);
        let name = widgets::line(
            ui,
            pos2(x, cy),
            Align2::LEFT_CENTER,
            &session,
            theme::semibold(size::TITLE - 1.0),
            p.text,
            (right - x) * 0.5,
        );
        x = name.right() + space::M;
        if !narrow {
            let hosted = match (backend.room(), &self.target) {
                (RoomState::Open { port, .. }, Target::Hosted { .. }) => {
                    tv("call.hosted_here", &[("port", port.to_string())])
                }
                _ if view.server.is_empty() => String::new(),
                _ => tv("call.hosted_by", &[("host", &view.server)]),
            };
            if !hosted.is_empty() {
                let r = widgets::line(
                    ui,
                    pos2(x, cy),
                    Align2::LEFT_CENTER,
                    &hosted,
                    theme::regular(size::CAPTION),
                    p.text3,
                    right - x - 80.0,
                );
                x = r.right() + space::M;
            }
        }
        if let Some(joined) = view.joined_at {
            let time = clock(joined.elapsed().as_secs());
            widgets::line(
                ui,
                pos2(x, cy),
                Align2::LEFT_CENTER,
                &time,
                theme::regular(size::CAPTION),
                p.text2,
                right - x,
            );
        }
    }

    pub(super) fn control_bar(
        &mut self,
        ui: &mut Ui,
        backend: &mut dyn Backend,
        prefs: &mut Preferences,
        view: &View,
        bar: Rect,
    ) -> Option<Ended> {
        let narrow = bar.width() < NARROW;
        let cy = bar.center().y;
        let top = (cy - height::CONTROL / 2.0).round();
        let gap = space::S;
        let muted_now = muted(view);
        let off = camera_off(view);
        let place = |x: f32, w: f32| Rect::from_min_size(pos2(x, top), vec2(w, height::CONTROL));
        let left = CornerRadius { nw: radius::CONTROL, sw: radius::CONTROL, ne: 3, se: 3 };
        let right = CornerRadius { nw: 3, sw: 3, ne: radius::CONTROL, se: radius::CONTROL };

        let invite = if narrow {
            Button::icon_only("call.invite", Kind::Control, icons::USER_PLUS, false, t("call.invite"))
        } else {
            Button::new("call.invite", Kind::Quiet, t("call.invite")).icon(icons::USER_PLUS, false).soft()
        };
        let leave = if narrow {
            Button::icon_only("call.leave", Kind::Danger, icons::PHONE_DISCONNECT, true, t("button.leave"))
        } else {
            Button::new("call.leave", Kind::Danger, t("button.leave")).icon(icons::PHONE_DISCONNECT, true)
        }
        .key(commands::key_text(ui.ctx(), Command::Leave));
        let shares = backend.can_share();
        let share_kind = if view.me.sharing { Kind::ControlOn } else { Kind::Control };
        let share_words = if view.me.sharing { t("cmd.share_stop") } else { t("call.share") };
        let share = if narrow {
            Button::icon_only("call.share", share_kind, icons::SCREENCAST, view.me.sharing, share_words)
        } else {
            Button::new("call.share", share_kind, share_words).icon(icons::SCREENCAST, view.me.sharing)
        }
        .key(commands::key_text(ui.ctx(), Command::ShareToggle))
        .toggled(view.me.sharing)
        .enabled(self.lost.is_none(), t("conn.lost"));

        let mic_w = 69.0;
        let no_camera = matches!(view.me.camera, DeviceState::Failed(_) | DeviceState::None);
        let cam_w = if no_camera { mic_w } else { 48.0 };
        let caret_w = 32.0;
        let share_w = if shares { share.width(ui).max(48.0) + gap } else { 0.0 };
        let invite_w = if narrow { 48.0 } else { invite.width(ui) };
        let leave_w = if narrow { 48.0 } else { leave.width(ui) - 2.0 };
        let mut center_w = mic_w + 2.0 + caret_w + gap + cam_w + 2.0 + caret_w + share_w;
        if narrow {
            center_w += gap + invite_w + gap + leave_w;
        }
        let mut x = (bar.center().x - center_w / 2.0).round();

        // Microphone.
        let failed = matches!(view.me.microphone, DeviceState::Failed(_) | DeviceState::None);
        let kind = if muted_now || failed { Kind::ControlMuted } else { Kind::Control };
        let mic_name = if failed {
            t("cmd.no_device")
        } else if muted_now {
            t("cmd.mic_unmute")
        } else {
            t("cmd.mic_mute")
        };
        let glyph = if muted_now || failed { icons::MICROPHONE_SLASH } else { icons::MICROPHONE };
        let mut mic = Button::icon_only("call.mic", kind, glyph, true, mic_name)
            .key(commands::key_text(ui.ctx(), Command::MicToggle))
            .toggled(!muted_now)
            .warn(failed)
            .corner(left);
        if !muted_now && !failed {
            let live = if self.lost.is_some() { 0.0 } else { widgets::meter_share(view.me.level.dbfs()) };
            mic = mic.level(Some(live));
        }
        let mic_response = mic.show(ui, place(x, mic_w));
        let mic_clicked = mic_response.clicked();
        x += mic_w + 2.0;
        let caret =
            Button::icon_only("call.mic.menu", kind, icons::CARET_UP, false, t("call.microphone_menu")).corner(right);
        let mut caret_response = caret.show(ui, place(x, caret_w));
        x += caret_w + gap;
        if mic_clicked {
            if failed {
                egui::Popup::open_id(ui.ctx(), egui::Popup::default_response_id(&caret_response));
                caret_response.set_close();
            } else {
                self.call.send(CallCommand::MuteAudio(!muted_now));
            }
        }
        if caret_response.clicked() || (mic_clicked && failed) {
            backend.refresh_devices();
        }
        self.sound_menu(backend, prefs, &caret_response);

        // Camera.
        let failed = no_camera;
        let kind = if off || failed { Kind::ControlMuted } else { Kind::Control };
        let cam_name = if failed {
            t("cmd.no_device")
        } else if off {
            t("cmd.cam_start")
        } else {
            t("cmd.cam_stop")
        };
        let glyph = if off || failed { icons::VIDEO_CAMERA_SLASH } else { icons::VIDEO_CAMERA };
        let cam = Button::icon_only("call.cam", kind, glyph, true, cam_name)
            .key(commands::key_text(ui.ctx(), Command::CamToggle))
            .toggled(!off)
            .warn(failed)
            .corner(left);
        let clicked = cam.show(ui, place(x, cam_w)).clicked();
        x += cam_w + 2.0;
        let caret =
            Button::icon_only("call.cam.menu", kind, icons::CARET_UP, false, t("call.camera_menu")).corner(right);
        let caret_response = caret.show(ui, place(x, caret_w));
        x += caret_w + gap;
        if clicked {
            if matches!(view.me.camera, DeviceState::None) {
                egui::Popup::open_id(ui.ctx(), egui::Popup::default_response_id(&caret_response));
            } else {
                self.call.send(CallCommand::MuteVideo(!off));
            }
        }
        if caret_response.clicked() {
            backend.refresh_devices();
        }
        let cameras = backend.cameras();
        let chosen = effective(&cameras, prefs.devices.camera.as_deref());
        let (rows, sources) = menu_rows(&cameras, chosen.as_deref(), "dev.none_camera");
        let sections = [Section { title: t("lobby.camera").into_owned(), rows }];
        if let Some((_, i)) = widgets::menu(&caret_response, 280.0, true, &t("call.camera_menu"), &sections)
            && let Some(source) = sources.into_iter().nth(i)
        {
            self.call.send(CallCommand::Camera(source.clone()));
            if source != NONE && off {
                self.call.send(CallCommand::MuteVideo(false));
            }
            prefs.devices.camera = Some(source);
        }

        if shares {
            let w = share_w - gap;
            if share.show(ui, place(x, w)).clicked() {
                self.share(backend, view);
            }
            x += w + gap;
        }

        // Invite at the left, leave alone at the right; both in the row when narrow.
        let (invite_rect, leave_rect) = if narrow {
            (place(x, invite_w), place(x + invite_w + gap, leave_w))
        } else {
            (place(bar.left() + space::S, invite_w), place(bar.right() - space::M - leave_w, leave_w))
        };
        let invite_response = invite.show(ui, invite_rect);
        self.invite_popup(ui, backend, &invite_response);
        if leave.show(ui, leave_rect).clicked() {
            return self.leave(backend, view);
        }
        None
    }

    pub(super) fn sound_menu(&self, backend: &mut dyn Backend, prefs: &mut Preferences, opener: &egui::Response) {
        let (microphones, speakers) = (backend.microphones(), backend.speakers());
        let mic = effective(&microphones, prefs.devices.microphone.as_deref());
        let speaker = effective(&speakers, prefs.devices.speaker.as_deref());
        let (mic_rows, mic_sources) = menu_rows(&microphones, mic.as_deref(), "dev.none_microphone");
        let (speaker_rows, speaker_sources) = menu_rows(&speakers, speaker.as_deref(), "dev.none_speaker");
        let sections = [
            Section { title: t("lobby.microphone").into_owned(), rows: mic_rows },
            Section { title: t("lobby.speaker").into_owned(), rows: speaker_rows },
        ];
        match widgets::menu(opener, 280.0, true, &t("call.microphone_menu"), &sections) {
            Some((0, i)) => {
                if let Some(source) = mic_sources.into_iter().nth(i) {
                    self.call.send(CallCommand::Microphone(source.clone()));
                    prefs.devices.microphone = Some(source);
                }
            }
            Some((_, i)) => {
                if let Some(source) = speaker_sources.into_iter().nth(i) {
                    self.call.send(CallCommand::Speaker(source.clone()));
                    prefs.devices.speaker = Some(source);
                }
            }
            None => {}
        }
    }

    pub(super) fn invite_popup(&mut self, ui: &mut Ui, backend: &dyn Backend, opener: &egui::Response) {
        let link = self.invitation(backend);
        let w = 400.0_f32.min(ui.ctx().content_rect().width() - 64.0);
        egui::Popup::from_toggle_button_response(opener)
            .align(egui::RectAlign::TOP_START)
            .gap(8.0)
            .close_behavior(egui::PopupCloseBehavior::CloseOnClickOutside)
            .accessible_name(t("call.invite_title"))
            .frame(egui::Frame::popup(ui.style()).inner_margin(space::L))
            .show(|ui| {
                let p = theme::palette(ui.ctx());
                ui.set_width(w);
                match link {
                    Some((link, browser)) => {
                        let h = 18.0 + space::S + height::FIELD + space::M + height::BUTTON + space::S + 16.0;
                        let (rect, _) = ui.allocate_exact_size(vec2(w, h), Sense::hover());
                        self.link_block(ui, "invite", &link, browser.as_deref(), rect.min, w);
                    }
                    None => {
                        let words = t("call.link_none");
                        let lines =
                            ui.painter().layout(words.to_string(), theme::regular(size::BODY), p.text2, w).rows.len()
                                as f32;
                        let (rect, _) = ui.allocate_exact_size(vec2(w, lines * 20.0), Sense::hover());
                        widgets::paragraph(
                            ui,
                            rect.min,
                            Align2::LEFT_TOP,
                            &words,
                            theme::regular(size::BODY),
                            p.text2,
                            w,
                        );
                    }
                }
            });
    }
}
