//! Before the call: who I am, what I look like, which devices, and the way in.

use std::time::{Duration, Instant};

use egui::{Align2, CornerRadius, Rect, Sense, Stroke, Ui, pos2, vec2};

use super::bridge::{Backend, Call, Device, DeviceChoice, Devices, JoinRequest, Preferences, Recent, Server, Target};
use super::commands::{self, Command};
use super::failure::{self, CardState, Remedy};
use super::text::{t, tv};
use super::theme::{self, height, size, space};
use super::video::{self, Video};
use super::widgets::{self, Button, Choice, Field, Kind, Mood};
use super::{icons, input};
use crate::call::Command as CallCommand;
use crate::call::view::{Connection, DeviceState, Failure, JoinStep};

/// State of the lobby.
pub struct Lobby {
    target: Target,
    muted: bool,
    camera_off: bool,
    joining: Option<Box<dyn Call>>,
    failure: Option<Failure>,
    card: CardState,
    /// Since when the microphone has given nothing, for the note after 3 s.
    silent_since: Option<Instant>,
    name_missing: bool,
    asked: Option<DeviceChoice>,
    refreshed: Option<Instant>,
}

/// What the lobby asks the program to do.
pub enum Outcome {
    /// Back to the first screen, with this text in the join field.
    Home(String),
    /// In.
    Joined(Box<dyn Call>, Target),
}

/// Below this level nothing at all comes from a microphone, not even its own noise.
const SILENCE_DBFS: f32 = -90.0;

/// The SOURCE that means "no device".
pub const NONE: &str = "none";

impl Lobby {
    /// A lobby for this target; devices open with the first frame.
    pub fn new(target: Target, prefs: &Preferences) -> Self {
        Self {
            target,
            muted: prefs.join_muted,
            camera_off: prefs.join_without_camera,
            joining: None,
            failure: None,
            card: CardState::default(),
            silent_since: None,
            name_missing: false,
            asked: None,
            refreshed: None,
        }
    }

    /// Draws it.
    pub fn show(
        &mut self,
        ui: &mut Ui,
        backend: &mut dyn Backend,
        prefs: &mut Preferences,
        video: &mut Video,
    ) -> Option<Outcome> {
        let p = theme::palette(ui.ctx());
        ui.painter().rect_filled(ui.max_rect(), CornerRadius::ZERO, p.surface);
        // Newly plugged devices appear by themselves.
        if self.refreshed.is_none_or(|at| at.elapsed() > Duration::from_secs(2)) {
            self.refreshed = Some(Instant::now());
            backend.refresh_devices();
        }
        let choice = self.choice(backend, prefs);
        let mut hold = choice.clone();
        if self.camera_off {
            hold.camera = None;
        }
        if self.asked.as_ref() != Some(&hold) {
            backend.set_preview(&hold);
            self.asked = Some(hold);
        }
        if let Some(outcome) = self.progress(backend, prefs) {
            return Some(outcome);
        }
        // The meter moves 15 times a second; nothing else here needs more than the pictures' own repaints.
        ui.ctx().request_repaint_after(Duration::from_millis(66));

        for command in commands::pressed(ui.ctx(), &[Command::MicToggle, Command::CamToggle]) {
            match command {
                Command::MicToggle => self.muted = !self.muted,
                Command::CamToggle => self.camera_off = !self.camera_off,
                _ => {}
            }
        }
        let mut outcome = self.header(ui, prefs);
        if outcome.is_some() {
            self.close(backend);
            return outcome;
        }
        let area = Rect::from_min_max(
            pos2(ui.max_rect().left(), ui.max_rect().top() + height::HEADER + 1.0),
            ui.max_rect().max,
        );
        let mut body = ui.new_child(egui::UiBuilder::new().max_rect(area).id_salt("lobby"));
        egui::ScrollArea::vertical().auto_shrink(false).show(&mut body, |ui| {
            outcome = self.body(ui, backend, prefs, video, &choice);
        });
        if matches!(outcome, Some(Outcome::Home(_))) {
            self.close(backend);
        }
        prefs.join_muted = self.muted;
        prefs.join_without_camera = self.camera_off;
        outcome
    }

    /// Closes the devices and gives up joining.
    pub fn close(&mut self, backend: &mut dyn Backend) {
        if let Some(call) = self.joining.take() {
            call.send(CallCommand::Leave);
        }
        backend.set_preview(&DeviceChoice::default());
        self.asked = None;
    }

    fn choice(&self, backend: &dyn Backend, prefs: &Preferences) -> DeviceChoice {
        DeviceChoice {
            camera: effective(&backend.cameras(), prefs.devices.camera.as_deref()),
            microphone: effective(&backend.microphones(), prefs.devices.microphone.as_deref()),
            speaker: effective(&backend.speakers(), prefs.devices.speaker.as_deref()),
        }
    }

    fn progress(&mut self, backend: &mut dyn Backend, prefs: &mut Preferences) -> Option<Outcome> {
        let call = self.joining.as_ref()?;
        let view = call.view();
        match &view.connection {
            Connection::Connected
            | Connection::Checking
            | Connection::Reconnecting { .. }
            | Connection::Rejoining { .. } => {
                let (mut session, mut host) = input::describe(&self.target);
                if !view.session.is_empty() {
                    session.clone_from(&view.session);
                }
                if host.is_empty() {
                    host.clone_from(&view.server);
                }
                remember(prefs, session, host);
                let call = self.joining.take()?;
                Some(Outcome::Joined(call, self.target.clone()))
            }
            Connection::Failed(failure) => {
                self.failure = Some(failure.clone());
                self.card = CardState::default();
                self.joining = None;
                self.asked = None;
                None
            }
            Connection::Ended { reason } => {
                self.failure = Some(Failure { key: "err.ended", values: Vec::new(), detail: reason.clone() });
                self.joining = None;
                self.asked = None;
                None
            }
            Connection::Idle | Connection::Joining(_) => {
                let _ = backend;
                None
            }
        }
    }

    fn header(&mut self, ui: &mut Ui, prefs: &Preferences) -> Option<Outcome> {
        let p = theme::palette(ui.ctx());
        let area = ui.max_rect();
        let cy = area.top() + height::HEADER / 2.0;
        let narrow = area.width() < 640.0;
        ui.painter().hline(area.x_range(), area.top() + height::HEADER + 0.5, Stroke::new(1.0, p.border));
        let back = if narrow {
            Button::icon_only("lobby.back", Kind::Quiet, icons::ARROW_LEFT, false, t("button.back"))
        } else {
            Button::new("lobby.back", Kind::Quiet, t("button.back")).icon(icons::ARROW_LEFT, false)
        };
        let bw = back.width(ui);
        let rect = Rect::from_min_size(pos2(area.left() + space::M, cy - 18.0), vec2(bw, height::BUTTON));
        let pressed = back.show(ui, rect).clicked();
        let mut x = rect.right() + space::S;
        let (session, host) = input::describe(&self.target);
        if !narrow {
            ui.painter().vline(x, (cy - 14.0)..=(cy + 14.0), Stroke::new(1.0, p.border));
            x += space::M;
            widgets::icon(ui, pos2(x + 8.0, cy), icons::SHIELD_CHECK, true, 16.0, p.text3);
            x += space::XL;
        }
        let session = super::text::clean(&session);
        let host = match (&self.target, host.is_empty()) {
            (Target::Hosted { .. }, _) => t("lobby.hosted_here").into_owned(),
            (Target::Token(_), true) => t("lobby.by_token").into_owned(),
            _ => host,
        };
        let name = widgets::line(
            ui,
            pos2(x, cy),
            Align2::LEFT_CENTER,
            &session,
            theme::semibold(size::TITLE),
            p.text,
            area.right() - x - 160.0,
        );
        let left = name.right() + space::M;
        widgets::line(
            ui,
            pos2(left, cy + 1.0),
            Align2::LEFT_CENTER,
            &host,
            theme::regular(size::CAPTION),
            p.text3,
            area.right() - left - space::L,
        );
        let _ = prefs;
        (pressed || !commands::pressed(ui.ctx(), &[Command::Close]).is_empty() && self.joining.is_none())
            .then(|| Outcome::Home(String::new()))
    }

    fn body(
        &mut self,
        ui: &mut Ui,
        backend: &mut dyn Backend,
        prefs: &mut Preferences,
        video: &mut Video,
        choice: &DeviceChoice,
    ) -> Option<Outcome> {
        let area = ui.max_rect();
        let top = ui.min_rect().top();
        let narrow = area.width() < 900.0;
        let (mut left_h, right_h);
        let outcome;
        if narrow {
            let w = (area.width() - 2.0 * space::L).min(560.0);
            let x = (area.center().x - w / 2.0).round();
            left_h = self.left(ui, backend, prefs, video, choice, pos2(x, top + space::L), w, true);
            let (h, o) = self.right(ui, backend, prefs, choice, pos2(x, top + space::L + left_h + space::L), w);
            right_h = left_h + h + space::L;
            left_h = right_h;
            outcome = o;
        } else {
            let w = (area.width() - 80.0).min(1200.0);
            let x = (area.center().x - w / 2.0).round();
            let right_w = 400.0_f32.min(w * 0.4);
            let left_w = w - right_w - 40.0;
            // The picture may not push the controls out of a low window.
            let picture_w = left_w.min((area.height() - 210.0).max(160.0) * 16.0 / 9.0);
            let y = top + space::HUGE;
            left_h =
                self.left(ui, backend, prefs, video, choice, pos2(x + (left_w - picture_w) / 2.0, y), picture_w, false);
            let (h, o) = self.right(ui, backend, prefs, choice, pos2(x + left_w + 40.0, y), right_w);
            right_h = h;
            outcome = o;
        }
        let bottom = top + space::HUGE + left_h.max(right_h) + space::XL;
        ui.allocate_rect(Rect::from_min_max(pos2(area.left(), top), pos2(area.right(), bottom)), Sense::hover());
        outcome
    }

    #[allow(clippy::too_many_arguments)]
    fn left(
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
            let name = super::text::clean(prefs.name.trim());
            let id = ui.make_persistent_id("lobby.preview");
            let state = if shown { t("tile.camera_on") } else { t("lobby.camera_off") };
            ui.interact(rect, id, Sense::hover()).widget_info(|| {
                egui::WidgetInfo::labeled(egui::Role::Image, true, format!("{}: {state}", t("lobby.preview")))
            });
            if !name.is_empty() {
                super::tile::plate(ui, rect, None, &name, None);
            }
        }

        // The controls under the picture.
        let y = rect.bottom() + space::M;
        let level = widgets::meter_share(preview.level.dbfs());
        let mic_name = if self.muted { t("cmd.mic_unmute") } else { t("cmd.mic_mute") };
        let mic = Button::icon_only(
            "lobby.mic",
            if self.muted { Kind::ControlMuted } else { Kind::Control },
            if self.muted { icons::MICROPHONE_SLASH } else { icons::MICROPHONE },
            true,
            mic_name,
        )
        .key(commands::key_text(ui.ctx(), Command::MicToggle))
        .toggled(!self.muted);
        let mic = if self.muted { mic } else { mic.level(Some(level)) };
        let cam_name = if self.camera_off { t("cmd.cam_start") } else { t("cmd.cam_stop") };
        let cam = Button::icon_only(
            "lobby.cam",
            if self.camera_off { Kind::ControlMuted } else { Kind::Control },
            if self.camera_off { icons::VIDEO_CAMERA_SLASH } else { icons::VIDEO_CAMERA },
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
        .enabled(!self.camera_off, t("lobby.camera_off"))
        .toggled(prefs.mirror);
        let widths = [if self.muted { 64.0 } else { mic.width(ui).max(69.0) }, 48.0, mirror.width(ui)];
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
    fn camera_problem(&mut self, ui: &mut Ui, rect: Rect, failure: &Failure, narrow: bool) -> bool {
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

    fn right(
        &mut self,
        ui: &mut Ui,
        backend: &mut dyn Backend,
        prefs: &mut Preferences,
        choice: &DeviceChoice,
        pos: egui::Pos2,
        w: f32,
    ) -> (f32, Option<Outcome>) {
        let p = theme::palette(ui.ctx());
        let x = pos.x;
        let mut y = pos.y;
        let mut outcome = None;
        widgets::line(ui, pos2(x, y), Align2::LEFT_TOP, &t("lobby.title"), theme::semibold(size::DISPLAY), p.text, w);
        y += 34.0 + space::M;
        if let Some(failure) = self.failure.clone() {
            let (h, remedy) = failure::card(ui, &mut self.card, &failure, pos2(x, y), w);
            y += h + space::L;
            if let Some(remedy) = remedy {
                outcome = self.apply(remedy, backend, prefs, choice);
            }
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
                (Mood::Warn, if f.key == "dev.cam_busy" { t("dev.in_use") } else { t("dev.missing") })
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
        let no_mic = matches!(&microphones, Devices::Known(list) if list.is_empty()) && choice.microphone.is_none();
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
            let other =
                microphones.list().iter().find(|d| Some(d.source.as_str()) != choice.microphone.as_deref()).cloned();
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

        // The way in.
        let joining = self.joining.is_some();
        let cancel = Button::new("lobby.cancel", Kind::Secondary, t("button.cancel"));
        let cancel_w = if joining { cancel.width(ui) + space::S } else { 0.0 };
        let join = Button::new("lobby.join", Kind::Primary, if joining { t("lobby.joining") } else { t("lobby.join") })
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
        if (pressed || entered) && !joining {
            if prefs.name.trim().is_empty() {
                self.name_missing = true;
                edit.request_focus();
            } else {
                self.start(backend, prefs, choice);
            }
        }
        (y - pos.y, outcome)
    }

    fn step(&self, connection: &Connection) -> String {
        let (_, host) = input::describe(&self.target);
        let host = if host.is_empty() { t("lobby.hosted_here").into_owned() } else { host };
        match connection {
            Connection::Joining(JoinStep::Entering) => t("lobby.step_entering").into_owned(),
            Connection::Joining(JoinStep::OpeningMedia) => t("lobby.step_media").into_owned(),
            _ => tv("lobby.step_reaching", &[("host", host)]),
        }
    }

    fn start(&mut self, backend: &mut dyn Backend, prefs: &Preferences, choice: &DeviceChoice) {
        self.failure = None;
        let own_certificate = match &self.target {
            Target::Session { server, .. } => prefs.servers.iter().any(|s| s.url == *server && s.own_certificate),
            Target::Token(_) => {
                let (_, host) = input::describe(&self.target);
                prefs.servers.iter().any(|s| input::host_of(&s.url) == host && s.own_certificate)
            }
            Target::Invitation(_) | Target::Hosted { .. } => false,
        };
        let given = |d: &Option<String>| d.clone().filter(|s| s != NONE);
        self.joining = Some(backend.join(JoinRequest {
            target: self.target.clone(),
            name: prefs.name.trim().to_owned(),
            devices: DeviceChoice {
                camera: given(&choice.camera),
                microphone: given(&choice.microphone),
                speaker: given(&choice.speaker),
            },
            muted: self.muted,
            camera_off: self.camera_off,
            own_certificate,
        }));
    }

    fn apply(
        &mut self,
        remedy: Remedy,
        backend: &mut dyn Backend,
        prefs: &mut Preferences,
        choice: &DeviceChoice,
    ) -> Option<Outcome> {
        match remedy {
            Remedy::TryAgain => {
                self.start(backend, prefs, choice);
                None
            }
            Remedy::Watch => {
                self.muted = true;
                self.camera_off = true;
                self.start(
                    backend,
                    prefs,
                    &DeviceChoice { camera: None, microphone: None, speaker: choice.speaker.clone() },
                );
                None
            }
            Remedy::AllowServer => {
                let host = input::describe(&self.target).1;
                match prefs.servers.iter_mut().find(|s| input::host_of(&s.url) == host) {
                    Some(server) => server.own_certificate = true,
                    None => prefs.servers.push(Server { url: format!("https://{host}"), own_certificate: true }),
                }
                self.start(backend, prefs, choice);
                None
            }
            Remedy::PasteLink | Remedy::Back => Some(Outcome::Home(String::new())),
            Remedy::JoinByName => Some(Outcome::Home(input::describe(&self.target).0)),
            Remedy::ChangeServer => Some(Outcome::Home(match &self.target {
                Target::Session { name, .. } => name.clone(),
                _ => String::new(),
            })),
        }
    }
}

fn remember(prefs: &mut Preferences, session: String, host: String) {
    if session.is_empty() {
        return;
    }
    let at_unix_ms =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    prefs.recent.retain(|r| r.session != session || r.host != host);
    prefs.recent.insert(0, Recent { session, host, at_unix_ms });
    prefs.recent.truncate(20);
}

/// The source that a preference means with these devices: a hardware device that is gone gives way to the first there is.
pub fn effective(devices: &Devices, preferred: Option<&str>) -> Option<String> {
    let list = devices.list();
    match preferred {
        Some(source) if source == NONE => Some(source.to_owned()),
        Some(source) if list.iter().any(|d| d.source == source) || !source.starts_with("device") => {
            Some(source.to_owned())
        }
        Some(source) if matches!(devices, Devices::Looking) => Some(source.to_owned()),
        _ => list.first().map(|d| d.source.clone()),
    }
}

/// Name of a source for people.
pub fn device_name(devices: &Devices, source: Option<&str>, none_key: &str) -> String {
    match source {
        Some(source) if source != NONE => {
            devices.list().iter().find(|d| d.source == source).map_or_else(|| source.to_owned(), |d| d.name.clone())
        }
        _ if matches!(devices, Devices::Looking) => t("dev.looking").into_owned(),
        _ => t(none_key).into_owned(),
    }
}

/// Rows of a device menu, the way out last, and the sources they stand for.
pub fn menu_rows(devices: &Devices, chosen: Option<&str>, none_key: &str) -> (Vec<(String, bool)>, Vec<String>) {
    let none = Device { source: NONE.to_owned(), name: t(none_key).into_owned() };
    let listed: Vec<Device> = devices.list().iter().cloned().chain([none]).collect();
    let rows = listed.iter().map(|d| (super::text::clean(&d.name), Some(d.source.as_str()) == chosen)).collect();
    (rows, listed.into_iter().map(|d| d.source).collect())
}

#[allow(clippy::too_many_arguments)]
fn device(
    ui: &mut Ui,
    key: &str,
    glyph: &str,
    none_key: &str,
    devices: &Devices,
    chosen: Option<&str>,
    pos: egui::Pos2,
    w: f32,
    mood: Mood,
    note: &str,
) -> Option<String> {
    let name = t(key);
    let value = device_name(devices, chosen, none_key);
    let salt = format!("{key}.choice");
    let response = Choice { salt: &salt, glyph, name: &name, value: &value, note, mood }
        .show(ui, Rect::from_min_size(pos, vec2(w, height::FIELD)));
    let (rows, sources) = menu_rows(devices, chosen, none_key);
    let (_, picked) =
        widgets::menu(&response, w - space::L, false, &name, &[widgets::Section { title: String::new(), rows }])?;
    sources.into_iter().nth(picked)
}
