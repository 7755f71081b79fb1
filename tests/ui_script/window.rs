//! The window with a scripted program behind it, as a screen reader sees it.

use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT as _, Queryable as _};
use tertulia::ui::app::{App, Start};
use tertulia::ui::bridge::Target;
use tertulia::ui::video::Video;

use super::Script;

/// A session by name.
pub fn session() -> Target {
    Target::Session { server: "https://meet.example.org".into(), name: "design-review".into() }
}

pub struct Window {
    pub harness: Harness<'static, Option<App>>,
}

impl Window {
    pub fn open(script: &Script, start: Start, size: (f32, f32)) -> Self {
        let backend = script.backend();
        let mut start = Some(start);
        let mut backend = Some(backend);
        // The harness leaves a margin of 8 round what it shows.
        let harness =
            Harness::builder().with_size(egui::vec2(size.0 + 16.0, size.1 + 16.0)).with_max_steps(8).build_ui_state(
                move |ui, app: &mut Option<App>| {
                    let app = app.get_or_insert_with(|| {
                        App::new(ui.ctx(), backend.take().expect("one"), start.take().expect("one"), Video::texture())
                    });
                    app.show(ui);
                },
                None,
            );
        let mut window = Self { harness };
        window.steps(3);
        window
    }

    /// Meters and spinners ask for repaints without end, so a number of frames is drawn rather than until all is quiet.
    pub fn steps(&mut self, n: usize) {
        self.harness.run_steps(n);
    }

    pub fn click(&mut self, label: &str) {
        self.harness.get_by_label(label).click();
        self.steps(3);
    }

    pub fn has(&self, label: &str) -> bool {
        self.harness.query_all_by_label(label).next().is_some()
    }

    pub fn has_text(&self, part: &str) -> bool {
        self.harness.query_all_by_label_contains(part).next().is_some()
    }

    pub fn field<'a>(&'a self, label: &'a str) -> egui_kittest::Node<'a> {
        let find = |role| egui_kittest::kittest::by().role(role).label(label);
        let found = self.harness.query_all(find(egui::Role::TextInput)).next();
        found.or_else(|| self.harness.query_all(find(egui::Role::PasswordInput)).next()).expect("a field of this name")
    }

    pub fn key(&mut self, key: egui::Key) {
        self.harness.key_press(key);
        self.steps(2);
    }

    pub fn enabled(&self, label: &str) -> bool {
        !self.harness.get_by_label(label).accesskit_node().is_disabled()
    }
}
