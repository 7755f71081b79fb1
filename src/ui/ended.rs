//! After the call: why it is over and what can be done.

use egui::{Align2, Rect, Ui, pos2, vec2};

use super::bridge::Target;
use super::call::{Ended, Why};
use super::failure::{self, CardState, Remedy};
use super::input;
use super::text::{clean, clock, t, tv};
use super::theme::{self, height, size, space};
use super::widgets::{self, Button, Kind};

/// State of the page.
pub struct EndedScreen {
    ended: Ended,
    card: CardState,
}

/// What the page asks for.
pub enum Outcome {
    /// To the first screen.
    Home,
    /// To the lobby of the same target.
    Again,
}

impl EndedScreen {
    /// A page for this ending.
    pub fn new(ended: Ended) -> Self {
        Self { ended, card: CardState::default() }
    }

    /// Where the call was.
    pub fn target(&self) -> Target {
        self.ended.target.clone()
    }

    /// Whether the way in cannot be used again: a token is for one entry, and a call started from the command line has no name here.
    fn spent(&self) -> bool {
        match &self.ended.target {
            Target::Token(_) => true,
            Target::Session { name, .. } => name.is_empty(),
            Target::Invitation(_) | Target::Hosted { .. } => false,
        }
    }

    /// Draws it.
    pub fn show(&mut self, ui: &mut Ui) -> Option<Outcome> {
        let p = theme::palette(ui.ctx());
        let area = ui.max_rect();
        let w = 480.0_f32.min(area.width() - space::XXL);
        if let Why::Failed(failure) = &self.ended.why
            && failure.key.starts_with("err.")
        {
            let failure = failure.clone();
            let at = pos2((area.center().x - w / 2.0).round(), (area.center().y - 130.0).round());
            let (_, remedy) = failure::card(ui, &mut self.card, &failure, at, w);
            let spent = self.spent();
            return remedy.map(|r| {
                if !spent && matches!(r, Remedy::TryAgain | Remedy::Watch | Remedy::AllowServer) {
                    Outcome::Again
                } else {
                    Outcome::Home
                }
            });
        }
        let (title, again) = match &self.ended.why {
            Why::Left => (t("end.left").into_owned(), true),
            Why::Failed(_) => (format!("{}. {}", t("conn.over"), t("conn.over_text")), true),
            Why::Reason(reason) => reason_text(reason),
        };
        let (session, _) = input::describe(&self.ended.target);
        let session = clean(&session);
        let lasted = tv("end.duration", &[("time", clock(self.ended.lasted.as_secs()))]);
        let lasted = if session.is_empty() { lasted } else { format!("{session}. {lasted}") };
        let inner = w - 2.0 * space::XL;
        let title_lines =
            ui.painter().layout(title.clone(), theme::semibold(size::HEADING), p.text, inner).rows.len() as f32;
        let h = space::XL + title_lines * 28.0 + space::S + 20.0 + space::XL + height::BUTTON + space::XL;
        let rect = Rect::from_center_size(area.center(), vec2(w, h));
        let rect = Rect::from_min_size(pos2(rect.left().round(), rect.top().round()), rect.size());
        widgets::card(ui, rect, p);
        let x = rect.left() + space::XL;
        let mut y = rect.top() + space::XL;
        widgets::paragraph(ui, pos2(x, y), Align2::LEFT_TOP, &title, theme::semibold(size::HEADING), p.text, inner);
        y += title_lines * 28.0 + space::S;
        widgets::line(ui, pos2(x, y), Align2::LEFT_TOP, &lasted, theme::regular(size::BODY), p.text2, inner);
        y += 20.0 + space::XL;
        let mut out = None;
        // A token for one person is spent: joining again with it can only fail.
        let again = again && !self.spent();
        // Who was cut off wants back; who left or was sent away wants on.
        let cut_off = again && matches!(self.ended.why, Why::Failed(_));
        let (home, retry) = if cut_off { (Kind::Secondary, Kind::Primary) } else { (Kind::Primary, Kind::Secondary) };
        let words = if cut_off { t("button.try_again") } else { t("end.again") };
        let mut buttons = vec![(Button::new("end.home", home, t("button.home")), Outcome::Home)];
        if again {
            buttons.push((Button::new("end.again", retry, words), Outcome::Again));
        }
        if cut_off {
            buttons.reverse();
        }
        let mut at = x;
        for (button, outcome) in buttons {
            let w = button.width(ui);
            if button.show(ui, Rect::from_min_size(pos2(at, y), vec2(w, height::BUTTON))).clicked() {
                out = Some(outcome);
            }
            at += w + space::S;
        }
        out
    }
}

/// Text of a reason as the server names it, and whether joining again makes sense.
fn reason_text(reason: &str) -> (String, bool) {
    match reason {
        "disconnect" => (t("end.left").into_owned(), true),
        "forceDisconnectByUser" => (t("end.removed_bare").into_owned(), false),
        "forceDisconnectByServer" => (t("end.server").into_owned(), true),
        "sessionClosedByServer" => (t("end.closed_bare").into_owned(), false),
        "openviduServerStopped" => (t("end.stopped").into_owned(), true),
        "elsewhere" => (t("end.elsewhere").into_owned(), true),
        "networkDisconnect" | "nodeCrashed" | "mediaServerReconnect" => (t("end.lost").into_owned(), true),
        _ => (t("end.server").into_owned(), true),
    }
}
