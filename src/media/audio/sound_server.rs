//! A connection to the sound server of our own, for what `cpal` does not tell. Spoken is PulseAudio's protocol, which PipeWire
//! serves as well.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use pulseaudio::protocol::{
    self, AuthParams, AuthReply, Command, CommandReply, Prop, Props, ProtocolError, SetClientNameReply, SinkInfoList,
    SourceInfoList,
};

/// The server answers within this time.
const ANSWER: Duration = Duration::from_secs(2);

/// A server that knows who we are.
pub(crate) struct Connection {
    pub(crate) socket: BufReader<UnixStream>,
    pub(crate) version: u16,
    next: u32,
}

impl Connection {
    /// Connects to the server of this session.
    ///
    /// # Errors
    /// A text when there is none, or it does not answer within 2 s.
    pub(crate) fn open() -> Result<Self, String> {
        let path = pulseaudio::socket_path_from_env().ok_or("there is no PulseAudio or PipeWire on this computer")?;
        let socket = UnixStream::connect(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Self::greet(socket).map_err(|e| e.to_string())
    }

    fn greet(socket: UnixStream) -> Result<Self, ProtocolError> {
        socket.set_read_timeout(Some(ANSWER))?;
        socket.set_write_timeout(Some(ANSWER))?;
        let mut this = Self { socket: BufReader::new(socket), version: protocol::MAX_VERSION, next: 0 };
        let cookie = pulseaudio::cookie_path_from_env().and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
        let version = protocol::MAX_VERSION;
        let auth = AuthParams { version, supports_shm: false, supports_memfd: false, cookie };
        let reply: AuthReply = this.get(&Command::Auth(auth))?;
        this.version = reply.version.min(protocol::MAX_VERSION);
        let mut props = Props::new();
        props.set(Prop::ApplicationName, text("Tertulia"));
        props.set(Prop::ApplicationProcessId, text(&std::process::id().to_string()));
        let _: SetClientNameReply = this.get(&Command::SetClientName(props))?;
        Ok(this)
    }

    /// Sends a command; its number is what the answer carries.
    pub(crate) fn send(&mut self, command: &Command) -> Result<u32, ProtocolError> {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        protocol::write_command_message(self.socket.get_mut(), number, command, self.version)?;
        Ok(number)
    }

    /// Asks and waits. Only while nothing else is expected from the server.
    fn get<R: CommandReply>(&mut self, command: &Command) -> Result<R, ProtocolError> {
        self.send(command)?;
        Ok(protocol::read_reply_message::<R>(&mut self.socket, self.version)?.1)
    }
}

/// Number of each device by its name. One that was unplugged and is back has another number.
pub(crate) fn instances() -> HashMap<String, u32> {
    let ask = || -> Result<HashMap<String, u32>, String> {
        let mut server = Connection::open()?;
        let sinks: SinkInfoList = server.get(&Command::GetSinkInfoList).map_err(|e| e.to_string())?;
        let sources: SourceInfoList = server.get(&Command::GetSourceInfoList).map_err(|e| e.to_string())?;
        let name = |name: &CString| name.to_string_lossy().into_owned();
        let sinks = sinks.iter().map(|d| (name(&d.name), d.index));
        Ok(sinks.chain(sources.iter().map(|d| (name(&d.name), d.index))).collect())
    };
    ask().unwrap_or_else(|error| {
        tracing::debug!(error, "devices without numbers");
        HashMap::new()
    })
}

/// A text as the protocol has it; empty where it holds a zero.
pub(crate) fn text(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}
