//! A failure on the screen: what happened, what to do, and a button that does it.

use egui::{Align2, CornerRadius, Rect, Ui, pos2, vec2};

use super::icons;
use super::text::{t, tv};
use super::theme::{self, height, size, space};
use super::widgets::{self, Button, Kind};
use crate::call::view::Failure;

/// What a remedy button does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The same again.
    TryAgain,
    /// Home, with an empty join field to paste into.
    PasteLink,
    /// Home, with the session's name in the join field.
    JoinByName,
    /// Home, with the server chooser in reach.
    ChangeServer,
    /// In, without camera and microphone.
    Watch,
    /// Home.
    Back,
    /// Allow the server's own certificate, after a tick.
    AllowServer,
}

impl Remedy {
    fn label(self) -> &'static str {
        match self {
            Self::TryAgain => "button.try_again",
            Self::PasteLink => "button.paste_link",
            Self::JoinByName => "button.join_by_name",
            Self::ChangeServer => "button.change_server",
            Self::Watch => "button.watch",
            Self::Back => "button.back",
            Self::AllowServer => "button.allow_server",
        }
    }
}

/// The remedies of a failure by its key, the default first.
pub fn remedies(key: &str) -> &'static [Remedy] {
    match key {
        "err.token" | "err.new_token" => &[Remedy::PasteLink, Remedy::JoinByName],
        "err.link" | "err.link_new" | "err.pin" => &[Remedy::PasteLink, Remedy::Back],
        "err.dns" | "err.refused" => &[Remedy::ChangeServer, Remedy::TryAgain],
        "err.not_openvidu" => &[Remedy::ChangeServer, Remedy::Back],
        "err.cert" => &[Remedy::Back, Remedy::AllowServer],
        "err.auth" => &[Remedy::ChangeServer, Remedy::TryAgain],
        "err.rights" | "err.full" => &[Remedy::Watch, Remedy::Back],
        "err.protocol" | "err.turned_away" | "err.closed" | "err.unsupported" => &[Remedy::Back],
        _ => &[Remedy::TryAgain, Remedy::Back],
    }
}

fn mark(key: &str) -> (&'static str, bool) {
    // Icon, and whether it is a refusal (red) rather than something to be mended (amber).
    match key {
        "err.token" | "err.new_token" | "err.link" | "err.link_new" => (icons::TICKET, true),
        "err.silent" | "err.dns" | "err.refused" | "err.offline" => (icons::CLOUD_SLASH, true),
        "err.protocol" => (icons::GIT_MERGE, false),
        "err.media" => (icons::WALL, true),
        "err.cert" | "err.pin" => (icons::SHIELD_WARNING, true),
        "err.auth" => (icons::PASSWORD, true),
        "err.full" | "err.no_room" | "err.closed" => (icons::USERS_THREE, false),
        "err.locked" => (icons::LOCK, false),
        "err.turned_away" | "err.rights" | "err.portal" => (icons::PROHIBIT, false),
        key if key.starts_with("dev.cam") => (icons::VIDEO_CAMERA_SLASH, false),
        key if key.starts_with("dev.mic") => (icons::MICROPHONE_SLASH, false),
        _ => (icons::WARNING, false),
    }
}

/// Whether the details are unfolded, the tick is set and the text was copied.
#[derive(Debug, Clone, Default)]
pub struct CardState {
    open: bool,
    known: bool,
    copied_at: Option<f64>,
}

/// Draws the card of a failure. Returns its height and the remedy that was chosen.
pub fn card(ui: &mut Ui, state: &mut CardState, failure: &Failure, pos: egui::Pos2, w: f32) -> (f32, Option<Remedy>) {
    let p = theme::palette(ui.ctx());
    let (title, sentence) = widgets::failure_text(failure);
    let (glyph, refusal) = mark(failure.key);
    let pad = 20.0;
    let inner = w - 2.0 * pad;
    let title_lines =
        ui.painter().layout(title.clone(), theme::semibold(size::TITLE), p.text, inner - 34.0).rows.len() as f32;
    let text_lines =
        ui.painter().layout(sentence.clone(), theme::regular(size::BODY), p.text2, inner).rows.len() as f32;
    let detail = failure.detail.trim();
    let allows = remedies(failure.key).contains(&Remedy::AllowServer);
    let detail_lines = if state.open {
        ui.painter().layout(detail.to_owned(), theme::mono(size::CAPTION), p.text3, inner).rows.len() as f32
    } else {
        0.0
    };
    let mut h = pad + title_lines * 22.0 + space::S + text_lines * 20.0 + space::L;
    if !detail.is_empty() {
        h += 24.0 + detail_lines * 16.0 + space::S;
    }
    if allows {
        h += height::HIT + space::S;
    }
    let list = remedies(failure.key);
    let buttons: Vec<Button<'_>> = list
        .iter()
        .enumerate()
        .map(|(i, r)| {
            let kind = if i == 0 { Kind::Primary } else { Kind::Secondary };
            Button::new(r.label(), kind, t(r.label()))
                .enabled(*r != Remedy::AllowServer || state.known, t("err.cert_tick"))
        })
        .collect();
    let total: f32 = buttons.iter().map(|b| b.width(ui) + space::S).sum::<f32>() - space::S;
    let stacked = total > inner;
    h += if stacked { buttons.len() as f32 * (height::BUTTON + space::S) - space::S } else { height::BUTTON } + pad;

    let rect = Rect::from_min_size(pos, vec2(w, h));
    widgets::card(ui, rect, p);
    let (x, mut y) = (pos.x + pad, pos.y + pad);
    widgets::icon(ui, pos2(x + 12.0, y + 11.0), glyph, false, 22.0, if refusal { p.danger_text } else { p.warn_text });
    widgets::paragraph(
        ui,
        pos2(x + 34.0, y),
        Align2::LEFT_TOP,
        &title,
        theme::semibold(size::TITLE),
        p.text,
        inner - 34.0,
    );
    y += title_lines * 22.0 + space::S;
    widgets::paragraph(ui, pos2(x, y), Align2::LEFT_TOP, &sentence, theme::regular(size::BODY), p.text2, inner);
    y += text_lines * 20.0 + space::L;
    if !detail.is_empty() {
        let caret = if state.open { icons::CARET_DOWN } else { icons::CARET_RIGHT };
        let fold = Button::new("failure.details", Kind::Link, t("details.title"))
            .icon(caret, false)
            .font_size(size::CAPTION)
            .toggled(state.open);
        let fw = fold.width(ui);
        if fold.show(ui, Rect::from_min_size(pos2(x, y), vec2(fw, 24.0))).clicked() {
            state.open = !state.open;
        }
        let now = ui.input(|i| i.time);
        let copied = state.copied_at.is_some_and(|at| now - at < 2.0);
        let copy = Button::new("failure.copy", Kind::Link, if copied { t("button.copied") } else { t("button.copy") })
            .icon(if copied { icons::CHECK } else { icons::COPY }, false)
            .font_size(size::CAPTION);
        let cw = copy.width(ui);
        if copy.show(ui, Rect::from_min_size(pos2(x + inner - cw, y), vec2(cw, 24.0))).clicked() {
            ui.ctx().copy_text(format!("{}: {detail}", failure.key));
            state.copied_at = Some(now);
            ui.ctx().request_repaint_after(std::time::Duration::from_secs(2));
        }
        if state.open {
            widgets::paragraph(
                ui,
                pos2(x, y + 24.0),
                Align2::LEFT_TOP,
                detail,
                theme::mono(size::CAPTION),
                p.text3,
                inner,
            );
        } else {
            let left = x + fw + space::S;
            widgets::line(
                ui,
                pos2(left, y + 12.0),
                Align2::LEFT_CENTER,
                detail,
                theme::mono(size::CAPTION),
                p.text3,
                x + inner - cw - space::S - left,
            );
        }
        y += 24.0 + detail_lines * 16.0 + space::S;
    }
    if allows {
        let r = Rect::from_min_size(pos2(x, y), vec2(inner, height::HIT));
        if tick(ui, "failure.known", r, &tv("err.cert_known", &failure.values), state.known).clicked() {
            state.known = !state.known;
        }
        y += height::HIT + space::S;
    }
    let mut chosen = None;
    let mut bx = x;
    for (button, remedy) in buttons.into_iter().zip(list) {
        let bw = if stacked { inner } else { button.width(ui) };
        if button.show(ui, Rect::from_min_size(pos2(bx, y), vec2(bw, height::BUTTON))).clicked() {
            chosen = Some(*remedy);
        }
        if stacked {
            y += height::BUTTON + space::S;
        } else {
            bx += bw + space::S;
        }
    }
    (h, chosen)
}

/// A box to tick with its words.
pub fn tick(ui: &mut Ui, salt: &str, rect: Rect, label: &str, on: bool) -> egui::Response {
    let p = theme::palette(ui.ctx());
    let response = ui.interact(rect, ui.make_persistent_id(salt), egui::Sense::click());
    response.widget_info(|| egui::WidgetInfo::selected(egui::Role::CheckBox, true, on, label));
    let square = Rect::from_center_size(pos2(rect.left() + 9.0, rect.center().y), vec2(18.0, 18.0));
    let (fill, edge) = if on { (p.accent, p.accent) } else { (p.field, p.border_strong) };
    ui.painter().rect(square, CornerRadius::same(4), fill, egui::Stroke::new(1.0, edge), egui::StrokeKind::Inside);
    if on {
        widgets::icon(ui, square.center(), icons::CHECK, false, 14.0, p.on_accent);
    }
    let galley = widgets::layout(ui, label, theme::regular(size::LABEL), p.text, rect.width() - 28.0, 1);
    ui.painter().galley(pos2(rect.left() + 26.0, (rect.center().y - galley.size().y / 2.0).round()), galley, p.text);
    if response.has_focus() {
        widgets::focus_ring(ui, square, 4);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::text;

    #[test]
    fn every_remedy_has_a_text_and_every_failure_a_remedy() {
        for key in [
            "err.token",
            "err.link",
            "err.dns",
            "err.silent",
            "err.refused",
            "err.cert",
            "err.auth",
            "err.full",
            "err.internal",
            "err.pin",
        ] {
            assert!(text::has(&format!("{key}.title")) && text::has(&format!("{key}.text")), "{key}");
            assert!(!remedies(key).is_empty());
            for remedy in remedies(key) {
                assert!(text::has(remedy.label()), "{remedy:?}");
            }
        }
    }
}
