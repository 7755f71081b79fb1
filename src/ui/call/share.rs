//! Choosing what to share: a screen or a window of another program, by its picture.

use super::*;
use crate::call::view::Tuning;
use crate::ui::bridge::{Screen, Screens};
use crate::ui::video::Show;

/// The open picker.
pub(super) struct Picker {
    windows: bool,
    chosen: Option<String>,
    tuning: Tuning,
    /// The focus has gone to the main button, as it does once there is something to share.
    focused: bool,
}

/// Widest dialog, and the width of a card from which another column fits.
const WIDEST: f32 = 828.0;
const CARD: f32 = 200.0;
/// The pictures of the picker among the streams that are drawn.
const PICTURES: &str = "share/";
/// The strip while something is shared: height, share of its color in it, its dot, room for its words and its choice.
const BAR: f32 = 44.0;
const BAR_TINT: f32 = 0.25;
const DOT: f32 = 5.0;
const BAR_WORDS: f32 = 180.0;
const TUNING: f32 = 300.0;
const TUNING_LEAST: f32 = 150.0;
/// Rows of the picker under the cards: what the share is tuned for.
const TUNING_ROWS: f32 = 84.0;
/// Name and size under a picture.
const CAPTION: f32 = 36.0;

impl CallScreen {
    /// Opens the picker, or ends a share.
    pub(super) fn share(&mut self, backend: &mut dyn Backend, view: &View) {
        if view.me.sharing {
            self.call.send(CallCommand::Share(None));
        } else if backend.desktop_picks_screen() {
            self.call.send(CallCommand::Share(Some("portal:ask".into())));
        } else if self.picker.is_none() {
            backend.refresh_screens();
            self.picker = Some(Picker { windows: false, chosen: None, tuning: view.me.tuning, focused: false });
        }
    }

    /// Whether the picture with this key is drawn.
    pub fn shows(&self, view: &View, key: &str) -> bool {
        view.tiles.iter().any(|t| t.key == key) || (self.picker.is_some() && key.starts_with(PICTURES))
    }

    pub(super) fn share_dialog(&mut self, ui: &mut Ui, backend: &mut dyn Backend, video: &mut Video, area: Rect) {
        let Some(mut picker) = self.picker.take() else { return };
        let screens = backend.screens();
        let title = t("share.title");
        let id = egui::Id::unique("call.share.dialog");
        let w = WIDEST.min(area.width() - space::XXL);
        let modal = egui::Modal::new(id)
            .area(egui::Modal::default_area(id).accessible_name(title.clone()))
            .frame(egui::Frame::window(ui.style()).inner_margin(space::XL))
            .show(ui.ctx(), |ui| picker.show(ui, video, &screens, &title, w - 2.0 * space::XL, area.height()));
        match modal.inner {
            Some(Choice::Share(source)) => {
                self.call.send(CallCommand::Tune(picker.tuning));
                self.call.send(CallCommand::Share(Some(source)));
            }
            Some(Choice::Close) => {}
            None if modal.should_close() => {}
            None => self.picker = Some(picker),
        }
    }
}

impl CallScreen {
    /// The strip over the stage while something of ours is shared; what it leaves of the stage.
    pub(super) fn share_bar(&mut self, ui: &mut Ui, view: &View, stage: Rect) -> Rect {
        if !view.me.sharing {
            return stage;
        }
        let p = theme::palette(ui.ctx());
        let bar = Rect::from_min_size(stage.min, vec2(stage.width(), BAR));
        ui.painter().rect_filled(bar, CornerRadius::same(radius::TILE), theme::mix(p.field, p.share, BAR_TINT));
        let dot = pos2(bar.left() + space::L, bar.center().y);
        ui.painter().circle_filled(dot, DOT, p.share);
        let middle = |w: f32, right: f32| {
            Rect::from_min_size(pos2(right - w, bar.center().y - height::BUTTON / 2.0), vec2(w, height::BUTTON))
        };
        let stop = Button::new("share.stop", Kind::Danger, t("cmd.share_stop"));
        let place = middle(stop.width(ui), bar.right() - space::XS);
        let mut left = place.left();
        if stop.show(ui, place).clicked() {
            self.call.send(CallCommand::Share(None));
        }
        let words_w = if bar.width() < NARROW { 0.0 } else { BAR_WORDS };
        let row = middle(TUNING.min(left - dot.x - 2.0 * space::L - words_w), left - space::L);
        if row.width() >= TUNING_LEAST {
            if let Some(tuning) = tune(ui, "share.now", row, view.me.tuning) {
                self.call.send(CallCommand::Tune(tuning));
            }
            left = row.left();
        }
        let at = pos2(dot.x + space::M, bar.center().y);
        let room = left - at.x - space::M;
        if room >= BAR_WORDS / 2.0 {
            let font = theme::semibold(size::LABEL);
            widgets::line(ui, at, Align2::LEFT_CENTER, &t("share.me"), font, p.text, room);
        }
        Rect::from_min_max(pos2(stage.left(), bar.bottom() + space::S), stage.max)
    }
}

/// What a share is tuned for, as a choice of three; returns the one that was pressed.
fn tune(ui: &mut Ui, salt: &str, row: Rect, tuning: Tuning) -> Option<Tuning> {
    let labels = [t("share.auto"), t("share.text"), t("share.motion")];
    let on = Tuning::ALL.iter().position(|t| *t == tuning).unwrap_or(0);
    let pressed = widgets::segments(ui, salt, row, &[&labels[0], &labels[1], &labels[2]], on, false)?;
    Tuning::ALL.get(pressed).copied().filter(|t| *t != tuning)
}

enum Choice {
    Share(String),
    Close,
}

/// Key of a source's picture among the streams that are drawn.
fn picture_key(source: &str) -> String {
    format!("{PICTURES}{source}")
}

/// `Screen 1`, or the window's title.
fn name_of(screen: &Screen, position: usize) -> String {
    if screen.title.is_empty() {
        tv("share.screen", &[("n", (position + 1).to_string())])
    } else {
        clean(&screen.title)
    }
}

impl Picker {
    fn show(
        &mut self,
        ui: &mut Ui,
        video: &mut Video,
        screens: &Screens,
        title: &str,
        w: f32,
        room: f32,
    ) -> Option<Choice> {
        let p = theme::palette(ui.ctx());
        ui.spacing_mut().item_spacing = vec2(0.0, 0.0);
        let mut out = None;
        let (head, _) = ui.allocate_exact_size(vec2(w, height::BUTTON), Sense::hover());
        let at = head.left_center();
        widgets::line(
            ui,
            at,
            Align2::LEFT_CENTER,
            title,
            theme::semibold(size::HEADING),
            p.text,
            w - height::BUTTON - space::S,
        );
        let close = Button::icon_only("share.close", Kind::Quiet, icons::X, false, t("button.close"));
        let corner =
            Rect::from_min_size(pos2(head.right() - height::BUTTON, head.top()), vec2(height::BUTTON, height::BUTTON));
        if close.show(ui, corner).clicked() {
            out = Some(Choice::Close);
        }
        ui.add_space(space::M);
        let (row, _) = ui.allocate_exact_size(vec2(w, height::BUTTON), Sense::hover());
        let labels = [t("share.screens"), t("share.windows")];
        if let Some(picked) =
            widgets::segments(ui, "share.kind", row, &[&labels[0], &labels[1]], usize::from(self.windows), false)
        {
            self.windows = picked == 1;
            self.chosen = None;
        }
        ui.add_space(space::L);

        let all: &[Screen] = if let Screens::Known(list) = screens { list } else { &[] };
        let shown: Vec<&Screen> = all.iter().filter(|s| s.title.is_empty() != self.windows).collect();
        if self.chosen.as_ref().is_none_or(|c| shown.iter().all(|s| s.source != *c)) {
            self.chosen = shown.first().map(|s| s.source.clone());
        }
        let most = (room - 2.0 * space::XL - 2.0 * height::BUTTON - height::BUTTON - 120.0 - TUNING_ROWS).max(120.0);
        if shown.is_empty() {
            let words = match (screens, self.windows) {
                (Screens::Looking, _) => t("share.looking"),
                (_, true) => t("share.no_windows"),
                (_, false) => t("share.no_screens"),
            };
            let (place, _) = ui.allocate_exact_size(vec2(w, 96.0), Sense::hover());
            let (x, y) = (place.center().x, place.top() + space::XL);
            widgets::paragraph(ui, pos2(x, y), Align2::CENTER_TOP, &words, theme::regular(size::BODY), p.text2, w);
        } else {
            egui::ScrollArea::vertical().max_height(most).auto_shrink([true, true]).show(ui, |ui| {
                if let Some(source) = self.cards(ui, video, &shown, w) {
                    out = Some(Choice::Share(source));
                }
            });
        }
        ui.add_space(space::L);
        let (label, _) = ui.allocate_exact_size(vec2(w, size::LABEL + space::S), Sense::hover());
        let at = label.left_center();
        widgets::line(ui, at, Align2::LEFT_CENTER, &t("share.tune"), theme::medium(size::LABEL), p.text2, w);
        ui.add_space(space::XS);
        let (row, _) = ui.allocate_exact_size(vec2(w, height::BUTTON), Sense::hover());
        if let Some(tuning) = tune(ui, "share.tune", row, self.tuning) {
            self.tuning = tuning;
        }
        let rest = w - TUNING - space::L;
        if rest >= BAR_WORDS {
            let at = pos2(row.left() + TUNING + space::L, row.top());
            let font = theme::regular(size::CAPTION);
            widgets::paragraph(ui, at, Align2::LEFT_TOP, &t("share.tune_text"), font, p.text2, rest);
        }
        ui.add_space(space::XL);
        let (foot, _) = ui.allocate_exact_size(vec2(w, height::BUTTON), Sense::hover());
        let position = shown.iter().position(|s| Some(&s.source) == self.chosen.as_ref());
        let name = position.and_then(|i| Some(name_of(shown.get(i)?, i)));
        let label = match &name {
            Some(name) if !self.windows => tv("share.button", &[("name", name)]),
            Some(_) => t("share.button_window").into_owned(),
            None => t("call.share").into_owned(),
        };
        let share = Button::new("share.go", Kind::Primary, label)
            .icon(icons::SCREENCAST, true)
            .enabled(self.chosen.is_some(), t("share.looking"));
        let cancel = Button::new("share.cancel", Kind::Secondary, t("button.cancel"));
        let (sw, cw) = (share.width(ui), cancel.width(ui));
        let y = foot.top();
        if cancel
            .show(ui, Rect::from_min_size(pos2(foot.right() - sw - space::S - cw, y), vec2(cw, height::BUTTON)))
            .clicked()
        {
            out = Some(Choice::Close);
        }
        let share = share.show(ui, Rect::from_min_size(pos2(foot.right() - sw, y), vec2(sw, height::BUTTON)));
        if !self.focused && self.chosen.is_some() {
            self.focused = true;
            share.request_focus();
        }
        if share.clicked()
            && let Some(source) = self.chosen.clone()
        {
            out = Some(Choice::Share(source));
        }
        out
    }

    /// The cards; returns the one that is to be shared at once.
    fn cards(&mut self, ui: &mut Ui, video: &mut Video, shown: &[&Screen], w: f32) -> Option<String> {
        let p = theme::palette(ui.ctx());
        let mut go = None;
        // Room for the ring of the chosen one, which lies outside its picture.
        let inner = w - space::L;
        let columns = (((inner + space::XL) / (CARD + space::XL)).floor() as usize).clamp(1, 3);
        let card = ((inner - space::XL * (columns as f32 - 1.0)) / columns as f32).floor();
        let picture_h = (card * 9.0 / 16.0).round();
        let rows = shown.len().div_ceil(columns);
        let total = rows as f32 * (picture_h + CAPTION) + (rows as f32 - 1.0) * space::L + space::XS;
        let (place, _) = ui.allocate_exact_size(vec2(inner, total), Sense::hover());
        for (i, screen) in shown.iter().enumerate() {
            let (row, column) = (i / columns, i % columns);
            let min = pos2(
                place.left() + 4.0 + column as f32 * (card + space::XL),
                place.top() + 4.0 + row as f32 * (picture_h + CAPTION + space::L),
            );
            let picture = Rect::from_min_size(min, vec2(card, picture_h));
            let whole = Rect::from_min_size(min, vec2(card, picture_h + CAPTION));
            let name = name_of(screen, i);
            let on = Some(&screen.source) == self.chosen.as_ref();
            let response = ui.interact(whole, ui.make_persistent_id(("share", &screen.source)), Sense::click());
            response.widget_info(|| egui::WidgetInfo::selected(egui::Role::RadioButton, true, on, &name));
            let look = Show { screen: true, mirror: false, light: 1.0, corner: 8, back: theme::LETTERBOX_SCREEN };
            ui.painter().rect_filled(picture, CornerRadius::same(8), p.field);
            if !video.show(ui, &picture_key(&screen.source), &screen.frames, picture, look) {
                widgets::icon(ui, picture.center(), icons::DESKTOP, false, 32.0, p.text3);
            }
            let edge = match (on, response.hovered()) {
                (true, _) => Stroke::new(3.0, p.accent),
                (false, true) => Stroke::new(1.0, p.border_strong),
                (false, false) => Stroke::new(1.0, p.border),
            };
            let side = if on { StrokeKind::Outside } else { StrokeKind::Inside };
            ui.painter().rect_stroke(picture, CornerRadius::same(8), edge, side);
            if response.has_focus() {
                widgets::focus_ring(ui, picture.expand(2.0), 8);
            }
            let y = picture.bottom() + 18.0;
            let size_text = format!("{} × {}", screen.size.0, screen.size.1);
            let at = pos2(picture.right(), y);
            let side =
                widgets::line(ui, at, Align2::RIGHT_CENTER, &size_text, theme::regular(size::LABEL), p.text3, card);
            let rest = side.left() - space::S - picture.left();
            let at = pos2(picture.left(), y);
            widgets::line(ui, at, Align2::LEFT_CENTER, &name, theme::medium(size::LABEL), p.text, rest);
            if response.hovered() {
                ui.ctx().set_cursor_icon(egui::CursorIcon::PointingHand);
            }
            if response.clicked() {
                self.chosen = Some(screen.source.clone());
            }
            if response.double_clicked() {
                go = Some(screen.source.clone());
            }
        }
        go
    }
}
