//! The window: which screen is shown, and what each one's outcome leads to.

use super::bridge::{Backend, Call, Preferences, RoomState, Target};
use super::call::CallScreen;
use super::commands::{self, Command};
use super::ended::{self, EndedScreen};
use super::home::{self, Home};
use super::lobby::{self, Lobby};
use super::pace::{FrameLog, Pace};
use super::video::Video;
use super::{text, theme, video_gl};
use crate::call::view::Connection;

/// Where the window starts.
pub enum Start {
    /// The first screen.
    Home,
    /// The lobby of a link that was opened with the program.
    Lobby(Target),
    /// A call that was started by other means, on the command line for example.
    Call(Box<dyn Call>, Target),
}

/// The window's state.
pub struct App {
    backend: Box<dyn Backend>,
    prefs: Preferences,
    screen: Screen,
    video: Video,
    pace: Pace,
    log: Option<FrameLog>,
    title: String,
    /// Told to close: nothing is asked any more.
    closing: bool,
    /// The window is to be closed once the call is left.
    close_after_call: bool,
}

enum Screen {
    Home(Home),
    Lobby(Lobby),
    Call(CallScreen),
    Ended(EndedScreen),
}

impl App {
    /// A window on this context.
    pub fn new(ctx: &egui::Context, mut backend: Box<dyn Backend>, start: Start, video: Video) -> Self {
        theme::install(ctx);
        let prefs = backend.preferences();
        text::set_language(&prefs.language);
        theme::choose(ctx, prefs.theme);
        let pace = Pace::new(video.is_slow());
        backend.set_repaint(pace.repaint(ctx));
        let screen = match start {
            Start::Home => Screen::Home(Home::default()),
            Start::Lobby(target) => Screen::Lobby(Lobby::new(target, &prefs)),
            Start::Call(call, target) => Screen::Call(CallScreen::new(call, target)),
        };
        Self {
            backend,
            prefs,
            screen,
            video,
            pace,
            log: None,
            title: String::new(),
            closing: false,
            close_after_call: false,
        }
    }

    /// Draws one frame.
    pub fn show(&mut self, ui: &mut egui::Ui) {
        let before = self.prefs.clone();
        self.zoom(ui.ctx());
        self.window_closing(ui.ctx());
        if matches!(self.video, Video::Texture(_)) {
            ui.painter().rect_filled(ui.max_rect(), egui::CornerRadius::ZERO, self.background(ui.ctx()));
        }
        let backend = self.backend.as_mut();
        let next = match &mut self.screen {
            Screen::Home(home) => match home.show(ui, backend, &mut self.prefs) {
                Some(home::Outcome::Lobby(target)) => Some(Screen::Lobby(Lobby::new(target, &self.prefs))),
                None => None,
            },
            Screen::Lobby(lobby) => match lobby.show(ui, backend, &mut self.prefs, &mut self.video) {
                Some(lobby::Outcome::Home(typed)) => Some(Screen::Home(Home::with_typed(typed))),
                Some(lobby::Outcome::Joined(call, target)) => Some(Screen::Call(CallScreen::new(call, target))),
                None => None,
            },
            Screen::Call(call) => call
                .show(ui, backend, &mut self.prefs, &mut self.video)
                .map(|ended| Screen::Ended(EndedScreen::new(ended))),
            Screen::Ended(ended) => match ended.show(ui) {
                Some(ended::Outcome::Home) => Some(Screen::Home(Home::default())),
                Some(ended::Outcome::Again) => Some(Screen::Lobby(Lobby::new(ended.target(), &self.prefs))),
                None => None,
            },
        };
        if let Screen::Call(call) = &self.screen {
            self.close_after_call &= call.is_leaving();
        }
        if let Some(next) = next {
            // Back at the start there is no way to a room that was left: it would stay open behind the user's back.
            if matches!(next, Screen::Home(_)) && matches!(backend.room(), RoomState::Open { .. } | RoomState::Starting)
            {
                backend.stop_room();
            }
            self.screen = next;
            if self.close_after_call {
                self.closing = true;
                ui.ctx().send_viewport_cmd(egui::ViewportCommand::Close);
            }
            ui.memory_mut(|m| {
                if let Some(id) = m.focused() {
                    m.surrender_focus(id);
                }
            });
            egui::Popup::close_all(ui.ctx());
            ui.ctx().request_repaint();
        }
        match &self.screen {
            Screen::Call(call) => {
                let view = call.view();
                self.video.end_frame(&|key| call.shows(&view, key));
            }
            Screen::Lobby(_) => self.video.end_frame(&|key| key == "preview"),
            Screen::Home(_) | Screen::Ended(_) => self.video.end_frame(&|_| false),
        }
        self.name_window(ui.ctx());
        if before != self.prefs {
            if before.theme != self.prefs.theme {
                theme::choose(ui.ctx(), self.prefs.theme);
            }
            self.backend.set_preferences(&self.prefs);
        }
    }

    /// What lies behind everything. The window is cleared with it, which costs nothing: no screen paints it again.
    fn background(&self, ctx: &egui::Context) -> egui::Color32 {
        self.behind(theme::palette(ctx))
    }

    fn behind(&self, p: &theme::Palette) -> egui::Color32 {
        if matches!(self.screen, Screen::Call(_)) { p.canvas } else { p.surface }
    }

    fn zoom(&self, ctx: &egui::Context) {
        for command in commands::pressed(ctx, &[Command::TextLarger, Command::TextSmaller, Command::TextNormal]) {
            let zoom = ctx.zoom_factor();
            ctx.set_zoom_factor(match command {
                Command::TextLarger => (zoom + 0.1).min(2.0),
                Command::TextSmaller => (zoom - 0.1).max(0.8),
                _ => 1.0,
            });
        }
    }

    /// Closing the window in a call asks; elsewhere devices are let go.
    fn window_closing(&mut self, ctx: &egui::Context) {
        if self.backend.wants_close() && !self.closing {
            self.closing = true;
            ctx.send_viewport_cmd(egui::ViewportCommand::Close);
        }
        if self.closing || !ctx.input(|i| i.viewport().close_requested()) {
            return;
        }
        match &mut self.screen {
            Screen::Call(call) => {
                if !matches!(call.view().connection, Connection::Ended { .. } | Connection::Failed(_))
                    && !call.ask_close()
                {
                    ctx.send_viewport_cmd(egui::ViewportCommand::CancelClose);
                    self.close_after_call = true;
                }
            }
            Screen::Lobby(lobby) => lobby.close(self.backend.as_mut()),
            Screen::Home(_) | Screen::Ended(_) => {}
        }
    }

    /// `design-review, muted, Tertulia`.
    fn name_window(&mut self, ctx: &egui::Context) {
        let name = text::t("app.name");
        let title = match &self.screen {
            Screen::Call(call) => {
                let view = call.view();
                let session = text::clean(&view.session);
                if super::call::muted(&view) {
                    format!("{session}, {}, {name}", text::t("tile.muted"))
                } else {
                    format!("{session}, {name}")
                }
            }
            _ => name.into_owned(),
        };
        if title != self.title {
            ctx.send_viewport_cmd(egui::ViewportCommand::Title(title.clone()));
            self.title = title;
        }
    }
}

impl eframe::App for App {
    fn clear_color(&self, visuals: &egui::Visuals) -> [f32; 4] {
        let p = if visuals.dark_mode { &theme::DARK } else { &theme::LIGHT };
        self.behind(p).to_normalized_gamma_f32()
    }

    fn ui(&mut self, ui: &mut egui::Ui, _frame: &mut eframe::Frame) {
        self.pace.frame();
        if let Some(log) = &self.log {
            log.begin(ui);
        }
        self.show(ui);
        if let (Some(log), Video::Gl(video, _)) = (&self.log, &self.video) {
            log.pictures(video.uploads());
        }
    }

    fn on_exit(&mut self, gl: Option<&egui_glow::glow::Context>) {
        if let (Video::Gl(video, _), Some(gl)) = (&self.video, gl) {
            video.destroy(gl);
        }
    }
}

/// Opens the window and runs until it is closed; `log` is for benches. To be called on the main thread.
pub fn run(backend: Box<dyn Backend>, start: Start, log: Option<FrameLog>) -> Result<(), String> {
    let viewport = egui::ViewportBuilder::default()
        .with_title("Tertulia")
        .with_app_id("org.tertulia.Tertulia")
        .with_inner_size([1280.0, 800.0])
        .with_min_inner_size([360.0, 480.0])
        .with_icon(icon());
    let mut options = eframe::NativeOptions {
        viewport,
        persist_window: true,
        persistence_path: backend.window_file(),
        // There are no gradients that it would smooth, and where the processor draws it costs.
        dithering: false,
        ..eframe::NativeOptions::default()
    };
    // A virtual display has no refresh to wait for: waiting there only slows everything down.
    options.glow_options.vsync = std::env::var_os("TERTULIA_NO_VSYNC").is_none();
    eframe::run_native(
        "tertulia",
        options,
        Box::new(move |cc| {
            let slow = cc.gl.as_ref().is_some_and(|gl| video_gl::is_software(gl));
            let mut app = App::new(&cc.egui_ctx, backend, start, Video::gl(slow));
            app.log = log;
            Ok(Box::new(app))
        }),
    )
    .map_err(|error| error.to_string())
}

fn icon() -> egui::IconData {
    let bytes: &[u8] = include_bytes!("../../assets/icon-64.png");
    let decode = || -> Option<egui::IconData> {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().ok()?;
        let mut rgba = vec![0; reader.output_buffer_size()?];
        let info = reader.next_frame(&mut rgba).ok()?;
        Some(egui::IconData { rgba, width: info.width, height: info.height })
    };
    decode().unwrap_or_default()
}
