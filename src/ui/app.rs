//! The window: which screen is shown, and what each one's outcome leads to.

use std::sync::Arc;

use super::bridge::{Backend, Preferences};
use super::home::{self, Home};
use super::{text, theme};

/// The window's state.
pub struct App {
    backend: Box<dyn Backend>,
    prefs: Preferences,
    screen: Screen,
}

enum Screen {
    Home(Home),
}

impl App {
    /// A window on this context.
    pub fn new(ctx: &egui::Context, mut backend: Box<dyn Backend>) -> Self {
        theme::install(ctx);
        let prefs = backend.preferences();
        text::set_language(&prefs.language);
        theme::choose(ctx, prefs.theme);
        let repaint = ctx.clone();
        backend.set_repaint(Arc::new(move || repaint.request_repaint()));
        Self { backend, prefs, screen: Screen::Home(Home::default()) }
    }

    /// Draws one frame.
    pub fn show(&mut self, ui: &mut egui::Ui) {
        let before = self.prefs.clone();
        let outcome = match &mut self.screen {
            Screen::Home(home) => home.show(ui, self.backend.as_mut(), &mut self.prefs),
        };
        if let Some(home::Outcome::Lobby(_target)) = outcome {}
        if before != self.prefs {
            if before.theme != self.prefs.theme {
                theme::choose(ui.ctx(), self.prefs.theme);
            }
            self.backend.set_preferences(&self.prefs);
        }
    }
}

impl eframe::App for App {
    fn ui(&mut self, ui: &mut egui::Ui, _frame: &mut eframe::Frame) {
        self.show(ui);
    }
}
