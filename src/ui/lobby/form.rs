//! Name, devices and the way in.

use super::*;

impl Lobby {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn right(
        &mut self,
        ui: &mut Ui,
        backend: &mut dyn Backend,
        prefs: &mut Preferences,
        choice: &DeviceChoice,
        pos: egui::Pos2,
        w: f32,
        pinned: bool,
    ) -> (f32, Option<Outcome>) {
        let p = theme::palette(ui.ctx());
        let x = pos.x;
        let mut y = pos.y;
        let mut outcome = None;
        widgets::line(ui, pos2(x, y), Align2::LEFT_TOP, &t("lobby.title"), theme::semibold(size::DISPLAY), p.text, w);
        y += 34.0 + space::M;
        if !pinned {
            let (h, o) = self.refusal(ui, backend, prefs, choice, pos2(x, y), w);
            y += h;
            outcome = o;
        }
        let preview = backend.preview();
        let label = |ui: &mut Ui, y: &mut f32, key: &str| {
            widgets::line(ui, pos2(x, *y), Align2::LEFT_TOP, &t(key), theme::medium(size::LABEL), p.text2, w);
            *y += 18.0 + 6.0;
        };
        label(ui, &mut y, "lobby.your_name");
        let (name, hint) = (t("lobby.your_name"), t("lobby.name"));
        let missing = self.name_missing && prefs.name.trim().is_empty();
        let edit = Field {
            salt: "lobby.name",
            glyph: Some(icons::USER),
            name: &name,
            hint: &hint,
            mood: if missing { Mood::Wrong } else { Mood::Calm },
            font_size: size::BODY,
            password: false,
        }
        .show(ui, Rect::from_min_size(pos2(x, y), vec2(w, height::FIELD)), &mut prefs.name);
        let entered = edit.lost_focus() && ui.input(|i| i.key_pressed(egui::Key::Enter));
        y += height::FIELD;
        if missing {
            widgets::line(
                ui,
                pos2(x, y + 4.0),
                Align2::LEFT_TOP,
                &t("lobby.name_needed"),
                theme::regular(size::CAPTION),
                p.danger_text,
                w,
            );
            y += 20.0;
        }
        y += space::L;

        label(ui, &mut y, "lobby.camera");
        let (mood, note) = match &preview.camera {
            DeviceState::Failed(f) if !self.camera_off => {
                let word = match f.key {
                    "dev.cam_busy" => t("dev.in_use"),
                    "dev.cam_lost" => t("dev.no_picture"),
                    _ => t("dev.missing"),
                };
                (Mood::Warn, word)
            }
            _ => (Mood::Calm, "".into()),
        };
        let picked = device(
            ui,
            "lobby.camera",
            icons::VIDEO_CAMERA,
            "dev.none_camera",
            &backend.cameras(),
            choice.camera.as_deref(),
            pos2(x, y),
            w,
            mood,
            &note,
        );
        if let Some(source) = picked {
            prefs.devices.camera = Some(source);
            self.camera_off = false;
        }
        y += height::FIELD + space::L;

        label(ui, &mut y, "lobby.microphone");
        let dbfs = preview.level.dbfs();
        let live = matches!(preview.microphone, DeviceState::On | DeviceState::Muted)
            && choice.microphone.as_deref().is_some_and(|m| m != NONE);
        if live && dbfs <= SILENCE_DBFS {
            self.silent_since.get_or_insert_with(Instant::now);
        } else {
            self.silent_since = None;
        }
        let silent = self.silent_since.is_some_and(|at| at.elapsed() > Duration::from_secs(3));
        let mic_failure = if let DeviceState::Failed(f) = &preview.microphone { Some(f.clone()) } else { None };
        let (mood, note) = match (&mic_failure, silent) {
            (Some(_), _) => (Mood::Warn, t("dev.missing")),
            (None, true) => (Mood::Warn, t("dev.silent")),
            _ => (Mood::Calm, "".into()),
        };
        let microphones = backend.microphones();
        let picked = device(
            ui,
            "lobby.microphone",
            icons::MICROPHONE,
            "dev.none_microphone",
            &microphones,
            choice.microphone.as_deref(),
            pos2(x, y),
            w,
            mood,
            &note,
        );
        if let Some(source) = picked {
            prefs.devices.microphone = Some(source);
            self.silent_since = None;
        }
        y += height::FIELD + space::M;
        let hint = t("lobby.speak");
        let hint_w = widgets::width(ui, &hint, theme::regular(size::CAPTION)) + space::M;
        let meter_w = if w > 320.0 { (w - hint_w).min(212.0) } else { w };
        let share = if live { widgets::meter_share(dbfs) } else { 0.0 };
        widgets::meter(ui, Rect::from_min_size(pos2(x, y), vec2(meter_w, 18.0)), share, &t("lobby.level"));
        if w > 320.0 {
            widgets::line(
                ui,
                pos2(x + meter_w + space::S, y + 9.0),
                Align2::LEFT_CENTER,
                &hint,
                theme::regular(size::CAPTION),
                p.text3,
                hint_w + 24.0,
            );
        }
        y += 18.0;
        let no_mic = matches!(&microphones, Devices::Known(list) if list.iter().all(|d| d.monitor))
            && choice.microphone.is_none();
        if let Some(failure) = mic_failure
            .or_else(|| no_mic.then(|| Failure { key: "dev.mic_none", values: Vec::new(), detail: String::new() }))
        {
            let (_, sentence) = widgets::failure_text(&failure);
            y += space::M;
            let again = t("button.try_again");
            let (h, pressed) = widgets::note(
                ui,
                pos2(x, y),
                w,
                Mood::Warn,
                &sentence,
                (!no_mic).then_some(("lobby.mic.again", &*again)),
            );
            if pressed {
                self.asked = None;
            }
            y += h;
        } else if silent {
            let dev = device_name(&microphones, choice.microphone.as_deref(), "dev.none_microphone");
            let other = another(&microphones, choice.microphone.as_deref()).cloned();
            let use_other = other.as_ref().map(|d| tv("button.use_other", &[("other", &d.name)]));
            y += space::M;
            let sentence = tv("dev.mic_silent.text", &[("dev", &dev)]);
            let (h, pressed) = widgets::note(
                ui,
                pos2(x, y),
                w,
                Mood::Warn,
                &sentence,
                use_other.as_deref().map(|l| ("lobby.mic.other", l)),
            );
            if let (true, Some(other)) = (pressed, other) {
                prefs.devices.microphone = Some(other.source);
                self.silent_since = None;
            }
            y += h;
        }
        y += space::L;

        label(ui, &mut y, "lobby.speaker");
        let speakers = backend.speakers();
        let test_w = height::FIELD;
        let picked = device(
            ui,
            "lobby.speaker",
            icons::SPEAKER_HIGH,
            "dev.none_speaker",
            &speakers,
            choice.speaker.as_deref(),
            pos2(x, y),
            w - test_w - space::S,
            Mood::Calm,
            "",
        );
        if let Some(source) = picked {
            prefs.devices.speaker = Some(source);
        }
        let test = Button::icon_only("lobby.test", Kind::Secondary, icons::PLAY, true, t("lobby.test_speaker"))
            .enabled(choice.speaker.as_deref().is_some_and(|s| s != NONE), t("dev.none_speaker"));
        if test.show(ui, Rect::from_min_size(pos2(x + w - test_w, y), vec2(test_w, height::FIELD))).clicked() {
            backend.test_speaker();
        }
        y += height::FIELD;
        if matches!(&speakers, Devices::Known(list) if list.is_empty()) && choice.speaker.is_none() {
            y += space::M;
            let (h, _) = widgets::note(ui, pos2(x, y), w, Mood::Warn, &t("dev.spk_none.text"), None);
            y += h;
        }
        y += space::XL;

        self.entered |= entered;
        if !pinned {
            y += self.way_in(ui, backend, prefs, choice, pos2(x, y), w);
        }
        (y - pos.y, outcome)
    }

    /// The card of a join that failed, if one did. Returns its height with the gap below.
    pub(super) fn refusal(
        &mut self,
        ui: &mut Ui,
        backend: &mut dyn Backend,
        prefs: &mut Preferences,
        choice: &DeviceChoice,
        pos: egui::Pos2,
        w: f32,
    ) -> (f32, Option<Outcome>) {
        let Some(failure) = self.failure.clone() else { return (0.0, None) };
        let (h, remedy) = failure::card(ui, &mut self.card, &failure, pos, w);
        (h + space::L, remedy.and_then(|r| self.apply(r, backend, prefs, choice)))
    }

    pub(super) fn step(&self, connection: &Connection) -> String {
        let (_, host) = input::describe(&self.target);
        let host = if host.is_empty() { t("lobby.hosted_here").into_owned() } else { host };
        match connection {
            Connection::Joining(JoinStep::Entering) => t("lobby.step_entering").into_owned(),
            Connection::Joining(JoinStep::OpeningMedia) => t("lobby.step_media").into_owned(),
            _ => tv("lobby.step_reaching", &[("host", host)]),
        }
    }

    /// The main button, and the line under it that says what will be on. Returns its height.
    pub(super) fn way_in(
        &mut self,
        ui: &mut Ui,
        backend: &mut dyn Backend,
        prefs: &Preferences,
        choice: &DeviceChoice,
        pos: egui::Pos2,
        w: f32,
    ) -> f32 {
        let p = theme::palette(ui.ctx());
        let preview = backend.preview();
        let x = pos.x;
        let mut y = pos.y;
        let joining = self.joining.is_some();
        let cancel = Button::new("lobby.cancel", Kind::Secondary, t("button.cancel"));
        let cancel_w = if joining { cancel.width(ui) + space::S } else { 0.0 };
        // After a refusal the remedy on its card is the one main thing.
        let kind = if self.failure.is_some() { Kind::Outline } else { Kind::Primary };
        let join = Button::new("lobby.join", kind, if joining { t("lobby.joining") } else { t("lobby.join") })
            .busy(joining)
            .font_size(size::BODY);
        let pressed = join.show(ui, Rect::from_min_size(pos2(x, y), vec2(w - cancel_w, height::MAIN))).clicked();
        if joining
            && cancel
                .show(
                    ui,
                    Rect::from_min_size(pos2(x + w - cancel_w + space::S, y), vec2(cancel_w - space::S, height::MAIN)),
                )
                .clicked()
        {
            if let Some(call) = self.joining.take() {
                call.send(CallCommand::Leave);
            }
            self.asked = None;
        }
        y += height::MAIN + space::S;
        let line = match &self.joining {
            Some(call) => self.step(&call.view().connection),
            None => {
                let mic = !self.muted && choice.microphone.as_deref().is_some_and(|m| m != NONE);
                let cam = !self.camera_off
                    && choice.camera.as_deref().is_some_and(|c| c != NONE)
                    && !matches!(preview.camera, DeviceState::Failed(_));
                match (mic, cam) {
                    (true, true) => t("lobby.as_on_on"),
                    (true, false) => t("lobby.as_on_off"),
                    (false, true) => t("lobby.as_off_on"),
                    (false, false) => t("lobby.as_off_off"),
                }
                .into_owned()
            }
        };
        let said = widgets::paragraph(
            ui,
            pos2(x + w / 2.0, y),
            Align2::CENTER_TOP,
            &line,
            theme::regular(size::CAPTION),
            p.text2,
            w,
        );
        y = said.bottom();
        let entered = std::mem::take(&mut self.entered);
        if (pressed || entered) && !joining {
            if prefs.name.trim().is_empty() {
                self.name_missing = true;
                ui.memory_mut(|m| m.request_focus(Field::id("lobby.name")));
            } else {
                self.start(backend, prefs, choice);
            }
        }
        y - pos.y
    }
}

/// Another device of the list than the one in use, by whichever row that was chosen.
fn another<'a>(devices: &'a Devices, chosen: Option<&str>) -> Option<&'a Device> {
    let used = devices.list().iter().find(|d| Some(d.source.as_str()) == chosen);
    devices.list().iter().find(|d| !d.monitor && !d.follows_system() && used.is_none_or(|used| used.name != d.name))
}
