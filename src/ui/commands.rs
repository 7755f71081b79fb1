//! The one table of commands: names, keys, and which ones a key press means. Buttons, tooltips and key handling read it.

use egui::{Key, KeyboardShortcut, Modifiers};

/// What a key or a button asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Mute or unmute the microphone.
    MicToggle,
    /// Talk while the key is held.
    TalkHeld,
    /// Stop or start the camera.
    CamToggle,
    /// Share a screen or stop sharing.
    ShareToggle,
    /// Page of the grid before this one.
    PagePrev,
    /// Page of the grid after this one.
    PageNext,
    /// Copy the invitation.
    InviteCopy,
    /// Leave the call.
    Leave,
    /// Whole screen.
    FullScreen,
    /// Bigger text.
    TextLarger,
    /// Smaller text.
    TextSmaller,
    /// Text as it was.
    TextNormal,
    /// Close what is open; never the call.
    Close,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The command.
    pub command: Command,
    /// Its identifier in the settings.
    pub id: &'static str,
    /// Keys. A letter without Ctrl acts only while no text field has the focus.
    pub keys: &'static [KeyboardShortcut],
}

const fn key(key: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(Modifiers::NONE, key)
}

const fn ctrl(key: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(Modifiers::COMMAND, key)
}

/// The table.
pub const TABLE: &[Row] = &[
    Row { command: Command::MicToggle, id: "mic.toggle", keys: &[key(Key::M)] },
    Row { command: Command::TalkHeld, id: "mic.talk_held", keys: &[key(Key::Space)] },
    Row { command: Command::CamToggle, id: "cam.toggle", keys: &[key(Key::V)] },
    Row { command: Command::ShareToggle, id: "share.toggle", keys: &[key(Key::S)] },
    Row { command: Command::PagePrev, id: "page.prev", keys: &[key(Key::PageUp)] },
    Row { command: Command::PageNext, id: "page.next", keys: &[key(Key::PageDown)] },
    Row { command: Command::InviteCopy, id: "invite.copy", keys: &[ctrl(Key::I)] },
    Row {
        command: Command::Leave,
        id: "call.leave",
        keys: &[KeyboardShortcut::new(Modifiers::COMMAND.plus(Modifiers::SHIFT), Key::L)],
    },
    Row { command: Command::FullScreen, id: "fullscreen", keys: &[key(Key::F), key(Key::F11)] },
    Row { command: Command::TextLarger, id: "text.larger", keys: &[ctrl(Key::Plus), ctrl(Key::Equals)] },
    Row { command: Command::TextSmaller, id: "text.smaller", keys: &[ctrl(Key::Minus)] },
    Row { command: Command::TextNormal, id: "text.normal", keys: &[ctrl(Key::Num0)] },
    Row { command: Command::Close, id: "close", keys: &[key(Key::Escape)] },
];

fn row(command: Command) -> Option<&'static Row> {
    TABLE.iter().find(|r| r.command == command)
}

/// The first key of a command as it is written in tooltips, `Ctrl I`.
pub fn key_text(ctx: &egui::Context, command: Command) -> String {
    row(command).and_then(|r| r.keys.first()).map(|k| ctx.format_shortcut(k).replace('+', " ")).unwrap_or_default()
}

/// Takes the key presses of these commands out of the input and returns what they mean, in the order of the table.
pub fn pressed(ctx: &egui::Context, wanted: &[Command]) -> Vec<Command> {
    let typing = ctx.text_edit_focused();
    // An open menu is the topmost thing: Esc is its own.
    let menu = egui::Popup::is_any_open(ctx);
    let mut out = Vec::new();
    ctx.input_mut(|input| {
        for row in TABLE.iter().filter(|r| wanted.contains(&r.command)) {
            for shortcut in row.keys {
                let plain = shortcut.modifiers == Modifiers::NONE;
                let edits =
                    plain && !matches!(shortcut.logical_key, Key::F11 | Key::Escape | Key::PageUp | Key::PageDown);
                let taken = menu && row.command == Command::Close;
                if (typing && edits) || taken || row.command == Command::TalkHeld {
                    continue;
                }
                // A held key repeats; only the first press counts.
                let first = input.events.iter().any(|e| {
                    matches!(e, egui::Event::Key { key, pressed: true, repeat: false, modifiers, .. }
                        if *key == shortcut.logical_key && modifiers.matches_exact(shortcut.modifiers))
                });
                if first && input.consume_shortcut(shortcut) {
                    out.push(row.command);
                }
            }
        }
    });
    out.dedup();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_means_two_things() {
        let mut seen: Vec<(KeyboardShortcut, Command)> = Vec::new();
        for row in TABLE {
            for k in row.keys {
                assert!(seen.iter().all(|(s, _)| s != k), "{k:?} of {} is taken", row.id);
                seen.push((*k, row.command));
            }
        }
    }
}
