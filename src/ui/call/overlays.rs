//! What lies over the stage: the banner of a lost connection, the reminder of a muted talker, the question on leaving.

use super::*;

/// The reminder stays this long after the last word, or until the microphone is open.
const REMINDER: Duration = Duration::from_secs(6);

impl CallScreen {
    /// The banner of a lost connection.
    pub(super) fn banner(&mut self, ui: &mut Ui, view: &View, stage: Rect) -> Option<Ended> {
        let p = theme::palette(ui.ctx());
        let (title, sentence, seconds, now) = match &view.connection {
            Connection::Reconnecting { attempt, retry_in_ms, place_kept_ms } => {
                let s = retry_in_ms.div_ceil(1000);
                let n = attempt.to_string();
                let sentence = match (s, place_kept_ms) {
                    (0, _) => tv("conn.lost_now", &[("n", n)]),
                    (s, 0) => tv("conn.lost_text_over", &[("s", s.to_string()), ("n", n)]),
                    (s, kept) => {
                        tv("conn.lost_text", &[("s", s.to_string()), ("n", n), ("m", kept.div_ceil(1000).to_string())])
                    }
                };
                (t("conn.lost"), sentence, Some(s), true)
            }
            Connection::Rejoining { attempt } => {
                (t("conn.rejoin"), tv("conn.rejoin_text", &[("n", attempt.to_string())]), None, false)
            }
            _ => return None,
        };
        ui.ctx().request_repaint_after(Duration::from_millis(250));
        let narrow = stage.width() < 620.0;
        let w = 720.0_f32.min(stage.width());
        let text_w = w - 70.0 - space::L - if narrow { 0.0 } else { 210.0 };
        let lines =
            ui.painter().layout(sentence.clone(), theme::regular(size::CAPTION), p.text2, text_w).rows.len() as f32;
        let title_lines =
            ui.painter().layout(title.to_string(), theme::semibold(size::BODY), p.text, text_w).rows.len() as f32;
        let text_h = title_lines * 20.0 + lines * 16.0;
        let h = (text_h + 34.0).max(70.0) + if narrow { height::BUTTON + space::S } else { 0.0 };
        let rect =
            Rect::from_min_size(pos2((stage.center().x - w / 2.0).round(), stage.top() + space::M + 2.0), vec2(w, h));
        ui.painter().add(theme::shadow(p).as_shape(rect, CornerRadius::same(radius::CARD)));
        ui.painter().rect(
            rect,
            CornerRadius::same(radius::CARD),
            p.overlay,
            Stroke::new(1.0, p.warn_text),
            StrokeKind::Inside,
        );
        let row = Rect::from_min_size(rect.min, vec2(w, (text_h + 34.0).max(70.0)));
        let ring = pos2(rect.left() + 36.0, row.center().y);
        match seconds {
            Some(s) => {
                let share = (s as f32 / 5.0).clamp(0.05, 1.0);
                let points = (0..=40).map(|i| {
                    let a = -std::f32::consts::FRAC_PI_2 - std::f32::consts::TAU * share * i as f32 / 40.0;
                    pos2(ring.x + 17.0 * a.cos(), ring.y + 17.0 * a.sin())
                });
                ui.painter().circle_stroke(ring, 17.0, Stroke::new(3.0, p.pressed));
                ui.painter().add(egui::Shape::line(points.collect(), Stroke::new(3.0, p.warn_text)));
                widgets::line(
                    ui,
                    ring,
                    Align2::CENTER_CENTER,
                    &s.to_string(),
                    theme::semibold(size::BODY),
                    p.text,
                    30.0,
                );
            }
            None => widgets::spinner(ui, ring, 15.0, p.warn_text),
        }
        let x = rect.left() + 70.0;
        let y = row.center().y - text_h / 2.0;
        let said =
            widgets::paragraph(ui, pos2(x, y), Align2::LEFT_TOP, &title, theme::semibold(size::BODY), p.text, text_w);
        widgets::paragraph(
            ui,
            pos2(x, said.bottom()),
            Align2::LEFT_TOP,
            &sentence,
            theme::regular(size::CAPTION),
            p.text2,
            text_w,
        );
        let leave = Button::new("conn.leave", Kind::Quiet, t("button.leave"));
        let lw = leave.width(ui);
        let by = if narrow { row.bottom() - space::S } else { row.center().y - height::BUTTON / 2.0 };
        let lx = rect.right() - space::L - lw;
        let mut out = None;
        if leave.show(ui, Rect::from_min_size(pos2(lx, by), vec2(lw, height::BUTTON))).clicked() {
            self.call.send(CallCommand::Leave);
            out = Some(self.end(Why::Left));
        }
        if now {
            let again = Button::new("conn.now", Kind::Primary, t("button.try_now"));
            let aw = again.width(ui);
            if again.show(ui, Rect::from_min_size(pos2(lx - space::S - aw, by), vec2(aw, height::BUTTON))).clicked() {
                self.call.send(CallCommand::ReconnectNow);
            }
        }
        out
    }

    pub(super) fn talking_while_muted(&mut self, ui: &mut Ui, view: &View, stage: Rect) {
        let newest = view.notices.iter().filter(|n| n.key == notices::TALKING).map(|n| n.id).max().unwrap_or(0);
        if newest > self.talk_notice {
            self.talk_notice = newest;
            self.talked_while_muted = Some(Instant::now());
        }
        if !muted(view) || self.lost.is_some() || self.talked_while_muted.is_some_and(|at| at.elapsed() > REMINDER) {
            self.talked_while_muted = None;
        }
        if self.talked_while_muted.is_none() {
            return;
        }
        let p = theme::palette(ui.ctx());
        let reminder = Reminder {
            glyph: (icons::MICROPHONE_SLASH, p.danger_text),
            border: p.warn_text,
            title: t("mute.talking").into_owned(),
            hint: Some(t("mute.hold").into_owned()),
            button: Button::new("mute.unmute", Kind::Primary, t("button.unmute")).font_size(size::LABEL),
        };
        if reminder.show(ui, stage, 0) {
            self.call.send(CallCommand::MuteAudio(false));
        }
    }

    /// Says that pictures are left out, for as long as they are, with the way back.
    pub(super) fn sound_only(&self, ui: &mut Ui, view: &View, stage: Rect) {
        if !view.sound_only {
            return;
        }
        let p = theme::palette(ui.ctx());
        let reminder = Reminder {
            glyph: (icons::VIDEO_CAMERA_SLASH, p.text2),
            border: p.border,
            title: t("net.sound_only").into_owned(),
            hint: Some(t("net.sound_only_text").into_owned()),
            button: Button::new("net.show", Kind::Secondary, t("button.show_pictures")).font_size(size::LABEL),
        };
        if reminder.show(ui, stage, usize::from(self.talked_while_muted.is_some())) {
            self.call.send(CallCommand::SoundOnly(false));
        }
    }

    pub(super) fn leave_dialog(
        &mut self,
        ui: &mut Ui,
        backend: &mut dyn Backend,
        view: &View,
        area: Rect,
    ) -> Option<Ended> {
        if !self.leaving {
            return None;
        }
        let hosts = matches!(self.target, Target::Hosted { .. }) && !view.people.is_empty();
        let sentence = if hosts { tn("leave.host", view.people.len()) } else { String::new() };
        let w = 460.0_f32.min(area.width() - space::XXL);
        let mut out = None;
        let id = egui::Id::unique("call.leave.dialog");
        let modal = egui::Modal::new(id)
            .area(egui::Modal::default_area(id).accessible_name(t("leave.title")))
            .frame(egui::Frame::window(ui.style()).inner_margin(space::XL))
            .show(ui.ctx(), |ui| {
                let p = theme::palette(ui.ctx());
                let inner = w - 2.0 * space::XL;
                let lines = if sentence.is_empty() {
                    0.0
                } else {
                    ui.painter().layout(sentence.clone(), theme::regular(size::BODY), p.text2, inner).rows.len() as f32
                };
                let (rect, _) = ui
                    .allocate_exact_size(vec2(inner, 28.0 + lines * 20.0 + space::XL + height::BUTTON), Sense::hover());
                widgets::line(
                    ui,
                    rect.min,
                    Align2::LEFT_TOP,
                    &t("leave.title"),
                    theme::semibold(size::HEADING),
                    p.text,
                    inner,
                );
                if !sentence.is_empty() {
                    widgets::paragraph(
                        ui,
                        rect.min + vec2(0.0, 30.0),
                        Align2::LEFT_TOP,
                        &sentence,
                        theme::regular(size::BODY),
                        p.text2,
                        inner,
                    );
                }
                let leave = Button::new("leave.yes", Kind::Danger, t("button.leave"));
                let stay = Button::new("leave.no", Kind::Secondary, t("button.stay"));
                let (lw, sw) = (leave.width(ui), stay.width(ui));
                let y = rect.bottom() - height::BUTTON;
                let yes =
                    leave.show(ui, Rect::from_min_size(pos2(rect.right() - lw, y), vec2(lw, height::BUTTON))).clicked();
                let no = stay
                    .show(ui, Rect::from_min_size(pos2(rect.right() - lw - space::S - sw, y), vec2(sw, height::BUTTON)))
                    .clicked();
                (yes, no)
            });
        let should_close = modal.should_close();
        let (yes, no) = modal.inner;
        if yes {
            self.call.send(CallCommand::Leave);
            if matches!(self.target, Target::Hosted { .. }) {
                backend.stop_room();
            }
            out = Some(self.end(Why::Left));
        } else if no || should_close {
            self.leaving = false;
        }
        out
    }
}

/// A line at the foot of the stage with one thing to do about it.
struct Reminder<'a> {
    glyph: (&'static str, egui::Color32),
    border: egui::Color32,
    title: String,
    /// Left out where there is no room.
    hint: Option<String>,
    button: Button<'a>,
}

impl Reminder<'_> {
    /// Draws it above so many others; whether its button was pressed.
    fn show(self, ui: &mut Ui, stage: Rect, above: usize) -> bool {
        let p = theme::palette(ui.ctx());
        let button_w = self.button.width(ui);
        let most = stage.width() - button_w - 48.0 - space::M - 2.0 * space::S;
        let fits = |points: f32| widgets::width(ui, &self.title, theme::medium(points)) <= most;
        let medium = theme::medium(if fits(size::BODY) { size::BODY } else { size::CAPTION });
        let title_w = widgets::width(ui, &self.title, medium.clone()).min(most);
        let hint = self.hint.map(|hint| (widgets::width(ui, &hint, theme::regular(size::CAPTION)), hint));
        let hint = hint.filter(|(hint_w, _)| stage.width() > title_w + hint_w + button_w + 110.0);
        let hint_w = hint.as_ref().map_or(0.0, |(hint_w, _)| space::M + hint_w);
        let w = 48.0 + title_w + hint_w + space::M + button_w + space::S;
        let rect = Rect::from_min_size(
            pos2((stage.center().x - w / 2.0).round(), stage.bottom() - 56.0 - 52.0 * above as f32),
            vec2(w, height::CONTROL),
        );
        let corners = CornerRadius::same(radius::TILE);
        ui.painter().add(theme::shadow(p).as_shape(rect, corners));
        ui.painter().rect(rect, corners, p.overlay, Stroke::new(1.0, self.border), StrokeKind::Inside);
        let y = rect.center().y;
        let (glyph, color) = self.glyph;
        widgets::icon(ui, pos2(rect.left() + 26.0, y), glyph, true, 20.0, color);
        let at = pos2(rect.left() + 48.0, y);
        let said = widgets::line(ui, at, Align2::LEFT_CENTER, &self.title, medium, p.text, title_w + 1.0);
        if let Some((hint_w, hint)) = hint {
            let at = pos2(said.right() + space::M, y);
            let regular = theme::regular(size::CAPTION);
            widgets::line(ui, at, Align2::LEFT_CENTER, &hint, regular, p.text2, hint_w + 1.0);
        }
        let at = Rect::from_min_size(pos2(rect.right() - button_w - space::S, y - 16.0), vec2(button_w, height::HIT));
        self.button.show(ui, at).clicked()
    }
}
